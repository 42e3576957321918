"""What this machine is called: the names and addresses that a browser may have reached it by."""

import re
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

_HOST: Final = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?")
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")

Address = IPv4Address | IPv6Address


def names() -> list[str]:
    """Host names of this machine in lower case: its own, the one of mDNS, and localhost."""
    own = socket.gethostname().casefold().rstrip(".")
    short = own.partition(".")[0]
    found = ["localhost", f"{short}.local", short, own]
    return [name for name in dict.fromkeys(found) if _NAME.fullmatch(name)]


def addresses() -> list[Address]:
    """Addresses of this machine's interfaces that others in the house can use, IPv4 first.

    Without those of the whole internet: a certificate's names must stay in the house.
    """
    import ifaddr

    found: set[Address] = set()
    for adapter in ifaddr.get_adapters():
        for entry in adapter.ips:
            text = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
            address = ip_address(text.partition("%")[0])
            if not (address.is_global or address.is_loopback or address.is_link_local):
                found.add(address)
    return sorted(found, key=lambda one: (one.version, int(one)))


def host_of(header: str) -> str | None:
    """The name or address in a Host header, in lower case; None if it is none."""
    found = _HOST.fullmatch(header)
    if found is None:
        return None
    return found["name"].strip("[]").casefold().rstrip(".")


class Hosts:
    """The names that a request may be for; everything else is somebody's trick with DNS.

    Args:
        own: names of this machine; looked up if None.
    """

    def __init__(self, own: Iterable[str] | None = None) -> None:
        self._own = {*(names() if own is None else own)}
        self._also: set[str] = set()

    def also(self, names: Iterable[str]) -> None:
        """Names that a certificate is for, instead of those told before; "*.home.example" stands
        for any one label."""
        self._also = {name.casefold() for name in names}

    def is_ours(self, header: str, local_address: str) -> bool:
        """Whether a Host header names this machine.

        Args:
            local_address: this end of the connection that the request came by. As an address it is
                the only one that a browser without tricks can have asked for.
        """
        name = host_of(header)
        if name is None:
            return False
        try:
            asked = plain(ip_address(name))
        except ValueError:
            known = self._own | self._also
            return name in known or f"*.{name.partition('.')[2]}" in known
        return asked.is_loopback or str(asked) == _plain_text(local_address)


def plain(address: Address) -> Address:
    """IPv4 inside of IPv6 as what it is."""
    return getattr(address, "ipv4_mapped", None) or address


def _plain_text(address: str) -> str:
    try:
        return str(plain(ip_address(address.partition("%")[0])))
    except ValueError:
        return address
