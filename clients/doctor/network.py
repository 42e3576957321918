"""Checks of the network part: on or off, who may come in, certificates, and being found."""

import json
from collections.abc import Iterator
from datetime import datetime
from importlib.util import find_spec
from typing import Final

from clients.doctor.context import Context
from clients.doctor.finding import Finding, ok, problem, skipped, warning
from clients.i18n import _

_SOON_S: Final = 14 * 86_400.0
"""The gateway renews a month before: what is younger than this was not renewed."""
_UP, _LOOPBACK, _MULTICAST = 1 << 0, 1 << 3, 1 << 12  # of netdevice(7)


def check_network(context: Context) -> Iterator[Finding]:
    """Does the daemon listen where it should, and who may come in?"""
    info = context.network
    if info is None:
        yield skipped("network", _("only a daemon that runs can tell"))
        return
    if not info.on:
        status = context.status
        if status is not None and _wanted(context):
            yield problem(
                "network.off",
                status.message or _("the daemon should listen on the network, and does not"),
                _("devices do not reach it"),
                "assistant network on",
            )
        else:
            yield ok("network", _("off: nobody else can connect"))
        return
    details = {"endpoint": info.endpoint, "hosts": info.hosts}
    n_devices = _count_devices(context)
    if n_devices == 0:
        yield warning(
            "network.devices",
            _("the daemon listens at {endpoint}, and no device is paired").format(
                endpoint=info.endpoint
            ),
            _("nobody can use it, so it need not listen"),
            "assistant pair; assistant network off",
            **details,
        )
    else:
        text = _("on at {endpoint} for {n} devices: {hosts}")
        text = text.format(endpoint=info.endpoint, n=n_devices, hosts=", ".join(info.hosts))
        yield ok("network", text, **details)


def _wanted(context: Context) -> bool:
    """Whether the setting says that it shall listen."""
    try:
        text = (context.data / "network" / "network.json").read_text(encoding="utf-8")
        return bool(json.loads(text)["on"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _count_devices(context: Context) -> int | None:
    from assistantd.protocol import Devices
    from clients.client import Client
    from clients.errors import RequestError

    with Client(context.wanted, timeout=5.0) as client:
        try:
            return len(client.request(Devices(op="list")).devices or [])
        except RequestError:  # it is a device itself, and may not know the others
            return None


def check_certificates(context: Context) -> Iterator[Finding]:
    """Are the gateway's certificates valid for long enough?"""
    from clients.web.tls import folder

    signed = folder() / "server.json"
    mend = "systemctl --user restart assistant-gateway"
    why = _("phones refuse to connect")
    try:
        expires = float(json.loads(signed.read_text(encoding="utf-8"))["expires_at"])
    except FileNotFoundError:
        yield skipped("certificates", _("none were made yet; the gateway makes them"))
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = _("{path} cannot be read: {problem}").format(path=signed, problem=error)
        yield problem("certificates.unreadable", text, why, f"rm '{signed}'; {mend}")
        return
    missing = [
        name
        for name in ("ca.crt", "ca.key", "server.crt", "server.key")
        if not (folder() / name).is_file()
    ]
    shown = datetime.fromtimestamp(expires).date().isoformat()
    details = {"expires": shown, "folder": str(folder())}
    if missing:
        text = _("the certificates in {folder} lack {names}")
        text = text.format(folder=folder(), names=", ".join(missing))
        yield problem("certificates.missing", text, why, mend, **details)
    elif expires < context.now():
        text = _("the certificate expired on {date}").format(date=shown)
        yield problem("certificates.expired", text, why, mend, **details)
    elif expires < context.now() + _SOON_S:
        text = _("the certificate expires on {date}").format(date=shown)
        why = _("phones will refuse to connect then; the gateway renews it while it runs")
        yield warning("certificates.expiring", text, why, mend, **details)
    else:
        yield ok("certificates", _("valid until {date}").format(date=shown), **details)


def check_mdns(context: Context) -> Iterator[Finding]:
    """Can others find this machine by its name?"""
    if context.network is None or not context.network.on:
        yield skipped("mdns", _("the network is off"))
        return
    if find_spec("zeroconf") is None:
        yield warning(
            "mdns.package",
            _("the package zeroconf is not installed"),
            _("devices do not find the daemon by themselves; its address must be typed"),
            "pip install 'assistantd[network]'",
        )
        return
    usable = []
    for folder in sorted((context.root / "sys/class/net").glob("*")):
        text = context.read(f"sys/class/net/{folder.name}/flags")
        flags = int(text, 16) if text.startswith("0x") else 0
        if flags & _UP and flags & _MULTICAST and not flags & _LOOPBACK:
            usable.append(folder.name)
    if not usable and (context.root / "sys/class/net").is_dir():
        yield warning(
            "mdns.multicast",
            _("no network interface that is up does multicast"),
            _("devices do not find the daemon by themselves; its address must be typed"),
            "ip link; sudo ip link set DEVICE multicast on",
        )
        return
    yield ok("mdns", _("announced on {names}").format(names=", ".join(usable)), interfaces=usable)
