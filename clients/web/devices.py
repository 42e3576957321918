"""Who is asking: from a token to a device, by the daemon's word, remembered for a moment.

The daemon checks each request again, for it is told the device's id; what is remembered here only
saves asking before every page file and every sound. `devices watch` tells when to forget.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from assistantd.protocol import DeviceInfo, DeviceKind, Devices
from clients.errors import AssistantError, RequestError
from clients.i18n import _
from clients.web.daemon import Daemon
from clients.web.errors import Refusal, refusal_of
from clients.web.limits import Buckets, household

_REMEMBERED_S: Final = 60.0
_MOST_REMEMBERED: Final = 1000
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,256}")
_TRIES_PER_MINUTE: Final = 30


@dataclass(frozen=True)
class _Known:
    device: DeviceInfo
    until: float


class Authenticator:
    """Tells devices by their tokens. Tokens themselves are not kept, only their SHA-256.

    Args:
        daemon: who knows.
        clock: seconds; replaced in tests.
    """

    def __init__(self, daemon: Daemon, clock: Callable[[], float] = monotonic) -> None:
        self._daemon, self._clock = daemon, clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._failures = Buckets(_TRIES_PER_MINUTE, _TRIES_PER_MINUTE, clock)
        self._changes = 0  # how often something was to be forgotten

    async def device(self, token: str, kind: DeviceKind, address: str | None) -> DeviceInfo:
        """The device that has this token.

        Args:
            kind: what it must be: a browser's cookie is no key of a program, nor the reverse.
            address: who asks; too many wrong tokens from there are refused without asking. None
                if nobody does: the gateway looks again at what it has let in.

        Raises:
            Refusal: there is none, it was revoked, or the daemon is away.
        """
        if not _TOKEN.fullmatch(token):
            raise unknown()
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        # while the daemon is away nobody is revoked, and a page may at least be told that it is
        if known is None or (known.until < self._clock() and self._daemon.online):
            place = household(address) if address is not None else None
            known = await self._ask(token, digest, place)
        if known.device.kind != kind:
            raise unknown()
        return known.device

    def forget(self, device_id: str) -> None:
        """Ask again for this device; "" for all of them."""
        self._changes += 1
        for digest, known in list(self._known.items()):
            if device_id in ("", known.device.id):
                del self._known[digest]

    async def _ask(self, token: str, digest: bytes, place: str | None) -> _Known:
        wait_s = self._failures.take(place) if place is not None else 0.0
        if wait_s:
            raise Refusal(
                429,
                "busy",
                _("too many wrong keys came from this address; wait a minute"),
                retry_s=wait_s,
            )
        changes = self._changes
        try:
            done = await self._daemon.request(Devices(op="authenticate", token=token))
        except RequestError as error:
            self._known.pop(digest, None)
            if error.code in ("unauthorized", "not_found", "bad_request"):
                raise unknown() from error
            raise refusal_of(error) from error
        except AssistantError as error:
            self._failures.give_back(place)
            raise refusal_of(error) from error
        self._failures.give_back(place)
        if done.device is None:
            raise unknown()
        known = _Known(done.device, self._clock() + _REMEMBERED_S)
        if changes == self._changes:  # else it may be another one's news that were waited for
            self._known[digest] = known
        while len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)
        return known


def unknown() -> Refusal:
    """For a token that is nobody's."""
    return Refusal(
        401, "unauthorized", _("this device is not paired; run `assistant pair` on the computer")
    )


def no_key() -> Refusal:
    """The same for a program, which has a key."""
    return Refusal(
        401,
        "unauthorized",
        _("this key is not known; `assistant devices add-key NAME` on the computer makes one"),
        reason=unknown().reason,
    )
