"""What this machine is called on its networks: for people who type it, and for QR codes.

Nothing here asks a name server, which could take seconds.
"""

import contextlib
import fcntl
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

_SIOCGIFADDR = 0x8915  # ioctl of Linux: the IPv4 address of an interface
_IF_INET6 = Path("/proc/net/if_inet6")


def host_name() -> str:
    """The machine's name, without a domain."""
    return socket.gethostname().partition(".")[0].lower() or "localhost"


def hosts() -> list[str]:
    """NAME.local, then addresses: IPv4 before IPv6, private before public, and among them first
    those of the default route: others may be of bridges that lead nowhere. No loopback."""
    found = dict.fromkeys(map(ipaddress.ip_address, (*_by_route(), *sorted(_by_interface()))))
    useful = [a for a in found if not (a.is_loopback or a.is_link_local or a.is_unspecified)]
    useful.sort(key=lambda address: (address.version, not address.is_private))
    names = [f"{host_name()}.local"] if host_name() != "localhost" else []
    return [*names, *map(str, useful)]


def addresses(found: list[str]) -> list[str]:
    """Those of them that are addresses."""
    return [host for host in found if _is_address(host)]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _by_interface() -> Iterator[str]:
    """Addresses of all interfaces, where the system is Linux."""
    if sys.platform != "linux":
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _index, name in socket.if_nameindex():
            # one without an IPv4 address answers with an error
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                yield socket.inet_ntoa(answer[20:24])
    if _IF_INET6.exists():
        for line in _IF_INET6.read_text().splitlines():
            yield str(ipaddress.IPv6Address(int(line.split()[0], 16)))


def _by_route() -> Iterator[str]:
    """The addresses with which this machine would talk to others; nothing is sent."""
    targets = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
    for family, target in targets:
        # without a route, or without IPv6, there is none
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            yield str(probe.getsockname()[0])
