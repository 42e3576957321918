"""The `devices` request: who was paired, what each may do, and who wants to hear of changes."""

import hashlib
import logging
import secrets
from collections.abc import Callable

from assistantd.i18n import _
from assistantd.log import fields
from assistantd.network.access import revoked
from assistantd.network.devices import DeviceError, DeviceStore
from assistantd.network.optional import words_if_installed
from assistantd.network.sparing import SparingLog
from assistantd.protocol import (
    DeviceInfo,
    Devices,
    Done,
    Error,
    ErrorCode,
    ErrorInfo,
    Limits,
    Progress,
    Reply,
)
from assistantd.server import Peer

log = logging.getLogger(__name__)

TOKEN_BYTES = 32

ReplyTo = Callable[[Reply], None]
Later = Callable[[Callable[[], Reply], ReplyTo], None]


class Registry:
    """For the serving thread.

    Args:
        later: runs what may take a moment on another thread, and answers with what it returns.
    """

    def __init__(self, store: DeviceStore, later: Later, sparing: SparingLog) -> None:
        self._store, self._later, self._log = store, later, sparing
        self._watchers: list[tuple[Peer, ReplyTo]] = []

    def handle(self, peer: Peer, request: Devices, reply: ReplyTo) -> None:
        """Answer a request of somebody who may make it; returns at once."""
        match request.op:
            case "watch":
                self._watchers.append((peer, reply))
                reply(Progress("devices", ""))
            case "whoami":
                device = self._store.get(peer.device) if peer.device else None
                text = None if device else _("the local user")
                reply(Done(device=device, message=text))
            case _:
                self._later(lambda: self._answer(request), reply)

    # --- watching ----------------------------------------------------------------------------

    def changed(self, device_id: str) -> None:
        """A device was added, revoked or changed: tell who watches, as far as they still may."""
        for watcher in list(self._watchers):
            peer, reply = watcher
            own = self._store.get(peer.device) if peer.device else None
            if peer.device is None or (own is not None and own.rights == "admin"):
                reply(Progress("devices", device_id))
            else:
                self._watchers.remove(watcher)
                reply(revoked())

    def cancel(self, client: bytes, target: bytes) -> bool:
        """End a client's `watch`; whether there was one."""
        found = [w for w in self._watchers if (w[0].client, w[0].request_id) == (client, target)]
        for watcher in found:
            self._watchers.remove(watcher)
            watcher[1](Done(message=_("cancelled")))
        return bool(found)

    def gone(self, connection: bytes) -> None:
        """Nobody of this connection watches any more."""
        self._watchers = [w for w in self._watchers if w[0].connection != connection]

    # --- on another thread -------------------------------------------------------------------

    def _answer(self, request: Devices) -> Reply:
        store, device_id = self._store, request.id or ""
        device: DeviceInfo | None
        match request.op:
            case "list":
                return Done(devices=store.list())
            case "add":
                return self._add(request)
            case "authenticate":
                return self._authenticate(request.token or "")
            case "revoke":
                if not store.revoke(device_id):
                    return _unknown(device_id)
                log.info("device revoked", extra=fields(device=device_id))
                return Done(message=_("{id} may come in no longer").format(id=device_id))
            case "rename":
                device = store.rename(device_id, request.name or "")
            case "limit":
                device = store.limit(device_id, request.rights, request.limits)
                log.info("device limited", extra=fields(device=device_id, rights=request.rights))
            case _:
                device = store.get(device_id)
        return Done(device=device) if device is not None else _unknown(device_id)

    def _add(self, request: Devices) -> Reply:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        try:
            device = self._store.add(
                name=request.name or "",
                kind="api",
                rights=request.rights or "chat",
                limits=request.limits or Limits(),
                token_sha256=hashlib.sha256(token.encode()).digest(),
                words=words_if_installed("token_words", token),
            )
        except DeviceError as problem:
            return _error("bad_request", str(problem))
        log.info("device added", extra=fields(device=device.id, kind="api", rights=device.rights))
        return Done(device=device, token=token)

    def _authenticate(self, token: str) -> Reply:
        device = self._store.by_token(token)
        if device is None:
            self._log.warning("refused a token")
            return revoked()
        return Done(device=device)


def _unknown(device_id: str) -> Error:
    text = _("there is no device {id}; see `assistant devices list`")
    return _error("not_found", text.format(id=device_id))


def _error(code: ErrorCode, message: str) -> Error:
    return Error(ErrorInfo(code, message))
