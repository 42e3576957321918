"""What a device may do: its rights, its limits, and the names that it sees.

Here alone is decided who makes a request and whether it is allowed. Nothing of it is remembered
but the tokens of the rate limits: each request looks into the store, so that whatever changes
there holds for the next one.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from assistantd.i18n import _
from assistantd.network.bucket import Bucket
from assistantd.network.devices import DeviceStore, is_long_ago
from assistantd.network.names import Names
from assistantd.network.sparing import SparingLog
from assistantd.protocol import (
    Cancel,
    Chat,
    Complete,
    DeviceInfo,
    Devices,
    Error,
    ErrorCode,
    ErrorInfo,
    Forget,
    Models,
    Pair,
    Ping,
    Reply,
    Request,
    Resume,
    Sessions,
    Status,
)

log = logging.getLogger(__name__)
BYTES_PER_TOKEN = 16
"""More than any text has on average that is worth reading: English has 4, Korean 2 to 6."""
USUAL_CONTEXT_LENGTH = 8192
"""While no model is loaded."""
SCHEMA_BYTES = 64 * 1024

ReplyTo = Callable[[Reply], None]


@dataclass(frozen=True)
class Admitted:
    """A request that is allowed."""

    device: DeviceInfo
    names: Names | None
    """What it sees of names; None if that is everything."""

    def show(self, reply: ReplyTo) -> ReplyTo:
        """A function that sends a reply as the device may see it."""
        names = self.names
        return reply if names is None else lambda told: reply(names.outward(told))


class Access:
    """For the serving thread.

    Args:
        touch: notes down that a device is here; must not wait for the disk.
        default_max_tokens: of an answer whose request does not say.
        context_length: of the model that is loaded, in tokens.
        clock: seconds that only go forward; replaced in unit tests.
    """

    def __init__(
        self,
        store: DeviceStore,
        touch: Callable[[str], None],
        default_max_tokens: int,
        context_length: Callable[[], int | None],
        sparing: SparingLog,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._touch, self._clock = store, touch, clock
        self.default_max_tokens, self._context_length = default_max_tokens, context_length
        self._log = sparing
        self._buckets: dict[str, Bucket] = {}

    def identify(self, key: str | None, request: Request) -> str | Error | None:
        """Who makes a request: a device's id, or None for the local user.

        Args:
            key: the CURVE key (Z85) that the connection has proved; None at the local door.

        Returns an error if he may not.
        """
        if key is None:
            if request.device is None:
                return None
            device = self._store.get(request.device)
            who = request.device
        else:
            if request.device is not None:
                self._log.warning("a device said for whom it speaks", key=key)
                text = _("`device` is for programs on the daemon's own machine; leave it out")
                return _error("bad_request", text)
            device, who = self._store.by_key(key), key
        if device is None:
            self._log.warning("refused a device", device=who, request=_name(request))
            return revoked()
        return device.id

    def admit(self, device_id: str, request: Request) -> Admitted | Error:
        """Whether a device may make a request; makes the request name what is stored.

        Returns an error if it may not.
        """
        device = self._store.get(device_id)
        if device is None:
            return revoked()
        if is_long_ago(device.last_seen_at, time.time()):
            self._touch(device_id)
        wait = 0.0
        if not isinstance(request, Cancel):  # what ends work is always welcome
            bucket = self._buckets.setdefault(device_id, Bucket(self._clock()))
            per_minute = device.limits.requests_per_minute
            wait = bucket.take(per_minute / 60, per_minute, self._clock())
        if wait > 0:
            return self._refuse(device, request, _too_often(device, wait))
        if _is_local_only(request):
            text = _("only programs on the daemon's own machine may do this")
            return self._refuse(device, request, _error("unauthorized", text))
        if device.rights == "admin":
            return Admitted(device, None)
        if not _is_chat(request):
            text = _(
                "this device may chat and nothing else; who looks after the daemon can change "
                "that with `assistant devices`"
            )
            return self._refuse(device, request, _error("unauthorized", text))
        if isinstance(request, Models) and request.name and _is_path(request.name):
            text = _("name a model as `assistant models list` does")
            return self._refuse(device, request, _error("unauthorized", text))
        names = Names(device.id)
        if not names.inward(request):
            text = _("the name of a device's session has at most {n} characters")
            return _error("bad_request", text.format(n=names.max_chars))
        return Admitted(device, names)

    def weigh(self, request: Chat | Complete) -> Error | None:
        """An error if what a device asks would take too long to read.

        The prompt is cut into tokens by the thread that computes everybody's answers. Most of
        those that are too long are found out here, before that.
        """
        n_most = BYTES_PER_TOKEN * (self._context_length() or USUAL_CONTEXT_LENGTH)
        if isinstance(request, Complete):
            texts = [request.prompt]
        else:
            messages = [message.content for message in request.messages or ()]
            texts = [request.text or "", request.system or "", *messages]
        if sum(len(text.encode("utf-8", "replace")) for text in texts) > n_most:
            text = _("the text has more than {n} bytes, far more than the model can read")
            return _error("too_large", text.format(n=n_most))
        if request.format != "text" and len(msgspec.json.encode(request.format)) > SCHEMA_BYTES:
            text = _("a device's JSON schema has at most {n} bytes")
            return _error("too_large", text.format(n=SCHEMA_BYTES))
        return None

    def lower(self, device: DeviceInfo, request: Chat | Complete) -> None:
        """Let an answer have no more tokens than the device's may."""
        wanted = request.max_tokens or self.default_max_tokens
        request.max_tokens = min(wanted, device.limits.max_tokens)

    def forget(self, device_id: str) -> None:
        """A device was revoked."""
        self._buckets.pop(device_id, None)

    def _refuse(self, device: DeviceInfo, request: Request, refusal: Error) -> Error:
        self._log.warning(
            "refused a request",
            device=device.id,
            request=_name(request),
            code=refusal.error.code,
        )
        return refusal


def revoked() -> Error:
    """What a device is told that may not come in, or may not any more."""
    text = _("this device is not paired, or was revoked; pair it again with `assistant pair`")
    return _error("unauthorized", text)


def _error(code: ErrorCode, message: str, retry_after_ms: int | None = None) -> Error:
    return Error(ErrorInfo(code, message, retry_after_ms))


def _too_often(device: DeviceInfo, wait_s: float) -> Error:
    text = _("this device may make {n} requests a minute; try again in {s:.1f} s").format(
        n=device.limits.requests_per_minute, s=wait_s
    )
    return _error("busy", text, math.ceil(1000 * wait_s))


def _name(request: Request) -> str:
    """The type of a request for the log, with its `op`."""
    op = getattr(request, "op", None)
    name = type(request).__name__.lower()
    return f"{name} {op}" if op else name


def _is_path(model: str) -> bool:
    return "/" in model or model.startswith("~")


def _is_chat(request: Request) -> bool:
    """Whether it is one of those that the rights `chat` allow."""
    match request:
        case Chat() | Complete() | Cancel() | Resume() | Ping() | Status() | Sessions():
            return True
        case Forget():
            return True  # of its own: names.py sees to that
        case Models():
            return request.op in ("list", "show")
        case Devices():
            return request.op == "whoami"
        case _:
            return False


def _is_local_only(request: Request) -> bool:
    """Whether it is for the web gateway, which speaks for those that it has not let in yet."""
    match request:
        case Pair():
            return request.op == "claim"
        case Devices():
            return request.op == "authenticate"
        case _:
            return False
