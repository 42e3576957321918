"""The `pair` request: opens a code, waits for its end, and lets a device in.

Browsers come by the web gateway, which hands the code on (`claim`); ZeroMQ clients by the pairing
socket, which listens only while a code is open and the network is on.
"""

import hashlib
import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import zmq

from assistantd.i18n import _
from assistantd.log import fields
from assistantd.network.access import revoked
from assistantd.network.codes import MAX_TRIES, Code, Codes, RefusedError, boot_clock
from assistantd.network.devices import DeviceError, DeviceStore
from assistantd.network.keys import KeyFileError
from assistantd.network.pairing_socket import PairingSocket
from assistantd.network.words import fingerprint, token_words
from assistantd.protocol import (
    Done,
    Error,
    ErrorCode,
    ErrorInfo,
    Limits,
    Pair,
    PairingInfo,
    Progress,
    Reply,
)
from assistantd.protocol_pairing import EXTRA, Offer, Welcome, require_packages
from assistantd.server import Peer

log = logging.getLogger(__name__)

ReplyTo = Callable[[Reply], None]
TOKEN_BYTES = 32


@dataclass(frozen=True)
class Place:
    """Where the daemon is on the network.

    Attributes:
        bind: binds the pairing socket; raises zmq.ZMQError.
        endpoint: of the encrypted conversations.
        port: of the encrypted conversations; pairing has the next one.
        host: what this machine calls itself.
    """

    bind: "Callable[[zmq.Socket[bytes]], None]" = field(compare=False)
    endpoint: str
    port: int
    host: str


class Pairing:
    """Codes, who waits for their end, and the pairing socket.

    Args:
        public_key: the daemon's (Z85), made if there is none yet; may raise.
        place: where to listen; None while the network is off.
        hosts: this machine's names and addresses.
        later: runs what may take a moment on another thread, and answers with what it returns.
    """

    def __init__(
        self,
        store: DeviceStore,
        public_key: Callable[[], str],
        place: Callable[[], Place | None],
        hosts: Callable[[], list[str]],
        later: Callable[[Callable[[], Reply], ReplyTo], None],
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._store, self._public_key, self._later = store, public_key, later
        self._place, self._hosts = place, hosts
        self.codes = Codes(self._changed, clock)
        self._waiting: dict[Peer, ReplyTo] = {}
        self._lock = threading.Lock()  # of the waiters
        self._socket_lock = threading.Lock()
        self._socket: PairingSocket | None = None
        self._socket_for: tuple[Code, Place] | None = None
        self._timer: threading.Timer | None = None
        self._closed = False

    # --- requests ----------------------------------------------------------------------------

    def handle(self, peer: Peer, request: Pair, reply: ReplyTo) -> None:
        """Answer a request of somebody who may make it; returns at once."""
        match request.op:
            case "open":
                self._later(lambda: self._open(request, peer.device), reply)
            case "close":
                self._later(self._close_code, reply)
            case "claim" if peer.device is not None:
                # or a device could try codes for others
                reply(
                    _error("unauthorized", _("only programs on the daemon's machine may do that"))
                )
            case "claim":
                self._later(lambda: self._claim(request), reply)
            case "wait":
                self._wait(peer, reply)

    def cancel(self, client: bytes, target: bytes) -> bool:
        """End a client's `wait`; whether there was one."""
        with self._lock:
            found = [p for p in self._waiting if (p.client, p.request_id) == (client, target)]
            replies = [self._waiting.pop(peer) for peer in found]
        for reply in replies:
            reply(Done(message=_("cancelled")))
        return bool(found)

    def gone(self, connection: bytes) -> None:
        """Nobody of this connection waits any more."""
        with self._lock:
            for peer in [peer for peer in self._waiting if peer.connection == connection]:
                del self._waiting[peer]

    def network_changed(self) -> None:
        """The network was turned on or off, or is elsewhere now; may take a moment."""
        try:
            self._listen()
        except zmq.ZMQError as problem:
            code = self.codes.last
            assert code is not None  # there was something to listen for
            self.codes.void(code, _cannot_listen(problem))

    def distrust(self, device: str) -> None:
        """A device may not let others in any more: a code that it opened is void, and it does not
        hear who comes. It may take a moment, and must come after all that it was still allowed."""
        with self._lock:
            replies = [self._waiting.pop(p) for p in list(self._waiting) if p.device == device]
        for reply in replies:
            reply(revoked())
        code = self.codes.last
        if code is not None and code.opened_by == device:
            self._close_code()

    def is_listening(self) -> bool:
        """Whether the pairing socket is bound."""
        held = self._socket_for
        return held is not None and held[0].is_live

    def close(self) -> None:
        """Make the open code void and stop listening, for good."""
        self._closed = True
        self.codes.close()
        self._listen()
        if self._timer is not None:
            self._timer.cancel()

    def _open(self, request: Pair, device: str | None) -> Reply:
        try:
            require_packages()
        except ModuleNotFoundError as missing:
            return _error("not_found", _missing(missing))
        try:
            public_key = self._public_key()
        except KeyFileError as problem:
            log.warning("no key for the network", extra=fields(problem=problem))
            return _error("bad_request", str(problem))
        code = self.codes.open(request.rights, request.limits or Limits(), device)
        try:
            self._listen()
        except zmq.ZMQError as problem:
            self.codes.void(code, _cannot_listen(problem))
            return _error("bad_request", _cannot_listen(problem))
        self._arm()
        place = self._place()
        return Done(
            pairing=PairingInfo(
                code=code.digits,
                secret=code.secret,
                expires_at=code.expires_at,
                hosts=self._hosts(),
                port=place.port + 1 if place is not None else None,
                fingerprint=fingerprint(public_key),
            )
        )

    def _close_code(self) -> Reply:
        was_open = self.codes.close()
        self._listen()
        return Done(message=_("the code is void") if was_open else _("no code was open"))

    def _claim(self, request: Pair) -> Reply:
        assert request.code is not None and request.name is not None  # checked when it was decoded
        try:
            code = self.codes.claim(request.code)
            self.codes.begin_adding(code)
        except RefusedError as refusal:
            busy = refusal.reason == "busy"
            return _error("busy" if busy else "unauthorized", str(refusal), refusal.retry_after_ms)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        try:
            device = self._store.add(
                name=request.name,
                kind="web",
                rights=code.rights,
                limits=code.limits,
                token_sha256=hashlib.sha256(token.encode()).digest(),
                words=token_words(token),
            )
        except DeviceError as problem:
            self.codes.fail(code, str(problem))
            return _error("bad_request", str(problem))
        except Exception as problem:
            text = _("the device could not be added: {problem}").format(problem=problem)
            self.codes.fail(code, text)
            raise
        self.codes.finish(code, device)
        return Done(device=device, token=token)

    def _add(self, code: Code, offer: Offer, words: str) -> Welcome:
        """A device that paired over the pairing socket; on that socket's thread."""
        place = self._place()
        if place is None:
            raise RefusedError("void", _("the network was turned off"))
        device = self._store.add(
            name=offer.name,
            kind="curve",
            rights=code.rights,
            limits=code.limits,
            public_key=offer.public_key,
            words=words,
        )
        self.codes.finish(code, device)
        return Welcome(port=place.port, host=place.host, device=device)

    # --- listening and waiting ---------------------------------------------------------------

    def _listen(self) -> None:
        """Let the pairing socket be as the code and the network want it."""
        with self._socket_lock:
            code, place = self.codes.last, self._place()
            wanted = None
            if code is not None and code.is_live and place and not self._closed:
                wanted = code, place
            if wanted == self._socket_for:
                return
            if self._socket is not None:
                self._socket.close()
            self._socket = self._socket_for = None
            if wanted is not None:
                code, place = wanted
                key = self._public_key()
                self._socket = PairingSocket(code, self.codes, key, place.bind, self._add)
                self._socket_for = wanted

    def _arm(self) -> None:
        """Look at the code's time when it should be over."""
        left = self.codes.expire()
        if self._timer is not None:
            self._timer.cancel()
        if left is not None and not self._closed:
            self._timer = threading.Timer(left + 0.01, self._arm)
            self._timer.daemon = True
            self._timer.start()

    def _wait(self, peer: Peer, reply: ReplyTo) -> None:
        self.codes.expire()
        with self._lock:
            code = self.codes.last
            answer = _outcome(code)
            if answer is None:
                self._waiting[peer] = reply
        if answer is not None:
            reply(answer)

    def _changed(self, code: Code) -> None:
        held = self._socket
        if held is not None:
            held.look()
        with self._lock:
            if code is not self.codes.last:
                return  # another was opened, and who waits waits for that one
            answer = _outcome(code)
            waiting = list(self._waiting.values())
            if answer is not None:
                self._waiting.clear()
        if answer is None and code.tries_left < MAX_TRIES:
            text = _("a wrong code was tried; {n} of {all} tries are left")
            message = text.format(n=code.tries_left, all=MAX_TRIES)
            answer = Progress("devices", message, code.tries_left, MAX_TRIES)
        if answer is not None:
            for reply in waiting:
                reply(answer)


def _outcome(code: Code | None) -> Reply | None:
    """What a `wait` ends with; None while it goes on."""
    if code is None:
        text = _("no code is open; run `assistant pair` on the daemon's machine")
        return _error("not_found", text)
    if code.state == "used":
        return Done(device=code.device)
    if code.state == "void":
        assert code.end is not None
        codes: dict[str, ErrorCode] = {"expired": "deadline", "closed": "not_found"}
        return _error(codes.get(code.end.reason, "unauthorized"), str(code.end))
    return None


def _error(code: ErrorCode, message: str, retry_after_ms: int | None = None) -> Error:
    return Error(ErrorInfo(code, message, retry_after_ms))


def _missing(missing: ModuleNotFoundError) -> str:
    return _(
        "pairing needs the package {package!r}, which is not installed; "
        'install it with: pip install "assistantd[{extra}]"'
    ).format(package=missing.name, extra=EXTRA)


def _cannot_listen(problem: zmq.ZMQError) -> str:
    return _(
        "cannot listen for pairing: {problem}; "
        "choose another port with `assistant network on --port`"
    ).format(problem=problem)
