"""`assistant pair`: let a phone, a watch or another computer in."""

import sys
import threading
from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING

import click

from clients.cli.output import clean, note, print_json
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.errors import AssistantError
from clients.i18n import _

if TYPE_CHECKING:
    from assistantd.protocol import DeviceInfo, Limits, PairingInfo, Progress
    from clients.client import Client

GATEWAY_PORT = 8443
_GRACE_S = 15.0
"""How long after the code's end the daemon gets to say so."""


@click.command(context_settings=HELP)
@click.option("--admin", is_flag=True, help="The device may do everything, as you may here.")
@click.option("--max-tokens", type=click.IntRange(1, 1_000_000), help="Of one answer, at most.")
@click.option(
    "--requests-per-minute", type=click.IntRange(1, 100_000), help="That the device may make."
)
@click.option(
    "--url",
    metavar="URL",
    help="Of the gateway's page for pairing, if it is not https://ADDRESS:8443/pair.",
)
@common
@pass_settings
def pair(
    settings: Settings,
    admin: bool,
    max_tokens: int | None,
    requests_per_minute: int | None,
    url: str | None,
) -> None:
    """Let a phone, a watch or another computer use the assistant.

    \b
    assistant network on       once, so that others can reach this machine
    assistant pair             shows a QR code and six digits, and waits
    assistant devices list     who may use it; `devices revoke ID` sends one away

    The code works once, for five minutes; Ctrl-C makes it void. Then both sides show the same four
    words: compare them. A paired device may chat, and sees its own conversations only; give
    --admin to what shall rule the daemon as you do.

    With --json there are two lines: the code, and when it was used the device.
    """
    from assistantd.protocol import Pair
    from clients.cli.connection import connect
    from clients.requests import present

    request = Pair(
        op="open",
        rights="admin" if admin else "chat",
        limits=_limits(max_tokens, requests_per_minute),
    )
    with connect(settings, start=True) as client:
        info = present(client.request(request).pairing, "pairing")
        try:
            link = _link(info, url)
            if settings.json:
                print_json({"pairing": info, "url": link})
                sys.stdout.flush()
            else:
                _show(info, link)
            device = _wait(client, info)
        except (KeyboardInterrupt, OSError, _NetworkOff):
            client.request(Pair(op="close"))
            if sys.stderr.isatty():
                note(_("the code is void"))
            raise
        if settings.json:
            print_json(device)
        else:
            _welcome(client, device)


class _NetworkOff(AssistantError):  # noqa: N818 as clients.errors
    """No device could come."""


def _limits(max_tokens: int | None, requests_per_minute: int | None) -> "Limits | None":
    from assistantd.protocol import Limits

    given = {"max_tokens": max_tokens, "requests_per_minute": requests_per_minute}
    chosen = {name: value for name, value in given.items() if value is not None}
    return Limits(**chosen) if chosen else None


def _link(info: "PairingInfo", url: str | None) -> str:
    """What the QR code says; the part after # is not sent to any server by a browser."""
    if url is None:
        if info.port is None:
            raise _NetworkOff(
                _(
                    "the network is off, so no device can come; turn it on with "
                    "`assistant network on`, or give --url for a gateway on this machine"
                )
            )
        host = _host(info)
        url = f"https://{f'[{host}]' if ':' in host else host}:{GATEWAY_PORT}/pair"
    return f"{url.partition('#')[0]}#{info.secret}"


def _host(info: "PairingInfo") -> str:
    """The address that a device will most likely reach: not all of them know NAME.local."""
    digits = (host for host in info.hosts if host.replace(".", "").isdecimal())
    return next(digits, info.hosts[0] if info.hosts else "localhost")


def _show(info: "PairingInfo", link: str) -> None:
    digits = f"{info.code[:3]} {info.code[3:]}"
    text = _(
        "On a phone or a watch, while `assistant gateway` runs here: scan this, "
        "or open {url} and type the code."
    )
    lines = [text.format(url=link.partition("#")[0])]
    if sys.stdout.isatty():
        lines += ["", *_qr_code(link)]
    lines += ["", _("The code:  {code}").format(code=digits), ""]
    if info.port is not None:
        where = _host(info)
        if info.port != 5772:
            where = f"[{where}]:{info.port - 1}" if ":" in where else f"{where}:{info.port - 1}"
        text = _("On another computer:  assistant connect {host} {code}")
        lines.append(text.format(host=where, code=info.code))
    click.echo(clean("\n".join(lines)) if not sys.stdout.isatty() else "\n".join(lines))


def _qr_code(text: str) -> list[str]:
    """Lines for a terminal, two rows of modules each, dark on light whatever its colours are."""
    from io import StringIO

    try:
        import segno
    except ModuleNotFoundError as missing:
        from clients.pairing import missing_package

        return [f"({missing_package(missing)})"]
    drawn = StringIO()
    segno.make(text, error="m", micro=False).terminal(drawn, border=2, compact=True)
    try:
        drawn.getvalue().encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return [text]
    return [f"\x1b[97;40m{line}\x1b[0m" for line in drawn.getvalue().splitlines()]


# --- waiting ---------------------------------------------------------------------------------


def _wait(client: "Client", info: "PairingInfo") -> "DeviceInfo":
    from assistantd.protocol import Pair
    from clients.requests import present

    with _Countdown(info.expires_at) as countdown:
        timeout = max(0.0, info.expires_at - time()) + _GRACE_S
        done = client.request(Pair(op="wait"), countdown.tell, timeout)
    return present(done.device, "device")


class _Countdown:
    """A line on the terminal with the time that is left; nothing elsewhere."""

    def __init__(self, until: float) -> None:
        self._until, self._over = until, threading.Event()
        self._writing = threading.Lock()
        self._shown = sys.stderr.isatty()
        self._thread = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> "_Countdown":
        if self._shown:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        if self._shown:
            self._thread.join()
            self._write("")

    def tell(self, progress: "Progress") -> None:
        """A remark above the line: somebody tried a wrong code."""
        with self._writing:
            if self._shown:
                sys.stderr.write("\r\x1b[K")
            note(progress.message)

    def _count(self) -> None:
        while True:
            left = max(0, round(self._until - time()))
            text = _("waiting for the device, {minutes}:{seconds:02} left; Ctrl-C makes it void")
            self._write(text.format(minutes=left // 60, seconds=left % 60))
            if self._over.wait(1):
                return

    def _write(self, text: str) -> None:
        if self._shown:
            with self._writing:
                sys.stderr.write(f"\r\x1b[K{text}")
                sys.stderr.flush()


# --- the device is here ----------------------------------------------------------------------


def _welcome(client: "Client", device: "DeviceInfo") -> None:
    who = _("{name} is paired, as device {id}").format(name=device.name, id=device.id)
    click.echo(clean(who))
    click.echo(clean(_("Its four words:  {words}").format(words=device.words)))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    question = _("Does the device show the same words?")
    if confirmed(question, lambda: _left_in(device)):
        return
    from assistantd.protocol import Devices

    client.request(Devices(op="revoke", id=device.id))
    raise AssistantError(
        _(
            "then somebody else has used the code: that device was sent away again. "
            "Look for who is in your network before you pair once more; see docs/network.md"
        )
    )


def confirmed(question: str, interrupted: Callable[[], None]) -> bool:
    """The answer, which has to be given; `interrupted` is called before Ctrl-C goes on."""
    try:
        return click.confirm(question, default=None, err=True)
    except click.Abort:
        interrupted()
        raise


def _left_in(device: "DeviceInfo") -> None:
    text = _("the device stays paired; `assistant devices revoke {id}` sends it away")
    note(text.format(id=device.id))
