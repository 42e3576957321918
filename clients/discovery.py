"""Daemons that announce themselves on the network by mDNS.

Anybody may announce anything: what is found here is a place to try, and no more.
"""

import threading
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from assistantd.protocol_pairing import SERVICE
from clients.errors import AssistantError
from clients.i18n import _
from clients.pairing import missing_package

if TYPE_CHECKING:
    from zeroconf import ServiceInfo

_AFTER_FIRST_S = 1.0
"""Once one is found, others have this long to be found as well."""
_DETAILS_MS = 1500


@dataclass(frozen=True)
class Found:
    """A daemon that says it is there."""

    name: str
    host: str
    """The address to try."""
    port: int
    words: str
    """Four, for its public key: `assistant network status` shows the same there."""
    version: str


def discover(seconds: float) -> list[Found]:
    """Look for daemons.

    Args:
        seconds: how long at most; less once some are found.

    Raises:
        AssistantError: a package is missing, or there is no network.
    """
    try:
        from zeroconf import Error, ServiceBrowser, Zeroconf
    except ModuleNotFoundError as missing:
        raise missing_package(missing) from missing
    names: list[str] = []
    heard = threading.Event()

    def listen(name: str, state_change: Any, **_more: Any) -> None:
        if state_change.name == "Added":
            names.append(name)
            heard.set()

    try:
        with Zeroconf() as zeroconf:
            browser = ServiceBrowser(zeroconf, SERVICE, handlers=[listen])
            deadline = monotonic() + seconds
            if heard.wait(seconds):
                threading.Event().wait(min(_AFTER_FIRST_S, max(0.0, deadline - monotonic())))
            browser.cancel()
            infos = [zeroconf.get_service_info(SERVICE, name, _DETAILS_MS) for name in names]
    except (OSError, RuntimeError, Error) as problem:
        raise AssistantError(
            _("cannot look around on the network: {problem}; name the machine instead").format(
                problem=problem
            )
        ) from problem
    return [found for info in infos if info is not None and (found := _read(info)) is not None]


def _read(info: "ServiceInfo") -> Found | None:
    addresses = sorted(info.parsed_scoped_addresses(), key=lambda address: ":" in address)
    if not addresses or not info.port:
        return None
    said = {
        key.decode("utf-8", "replace"): (value or b"").decode("utf-8", "replace")[:100]
        for key, value in info.properties.items()
    }
    name = info.name.removesuffix(f".{SERVICE}")
    return Found(name, addresses[0], info.port, said.get("words", ""), said.get("version", ""))
