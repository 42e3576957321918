"""`assistant network`: whether devices elsewhere can reach the daemon, and where."""

from typing import TYPE_CHECKING

import click

from clients.cli.output import note, pairs, print_json
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.i18n import _

if TYPE_CHECKING:
    from assistantd.protocol import Network, NetworkInfo


@click.group(context_settings=HELP)
def network() -> None:
    """Let paired devices reach the daemon from elsewhere.

    \b
    assistant network on                           on all interfaces, port 5771
    assistant network on --address 192.168.1.10    on one of them only
    assistant network status
    assistant network off                          this machine only, as it is at first

    Everything goes encrypted, and only devices that were let in with `assistant pair` get an
    answer. What is set here holds over restarts.
    """


@network.command()
@click.option("--address", metavar="ADDRESS", help="Of the interface to listen on; by default all.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="By default 5771; the next one is for pairing.",
)
@common
@pass_settings
def on(settings: Settings, address: str | None, port: int | None) -> None:
    """Listen on the network."""
    from assistantd.protocol import Network

    info = _ask(settings, Network(op="on", address=address, port=port), start=True)
    _show(settings, info)
    if settings.json:
        return
    if not info.fingerprint:  # its words come with what pairing needs
        note(
            _(
                "the daemon cannot pair devices, nor be found by them: where it runs, "
                "pip install 'assistantd[network]', and start it anew"
            )
        )
        return
    note(_("to let a device in, run `assistant pair`"))


@network.command()
@common
@pass_settings
def off(settings: Settings) -> None:
    """Listen on this machine only; connections from elsewhere end at once."""
    from assistantd.protocol import Network

    _show(settings, _ask(settings, Network(op="off"), start=True))


@network.command()
@common
@pass_settings
def status(settings: Settings) -> None:
    """Whether the daemon listens on the network, and how to find it there."""
    from assistantd.protocol import Network

    _show(settings, _ask(settings, Network(op="status"), start=False))


def _ask(settings: Settings, request: "Network", *, start: bool) -> "NetworkInfo":
    from clients.cli.connection import connect
    from clients.requests import present

    with connect(settings, start=start) as client:
        return present(client.request(request).network, "network")


def _show(settings: Settings, info: "NetworkInfo") -> None:
    if settings.json:
        print_json(info)
        return
    rows = [
        (_("network"), _("on") if info.on else _("off")),
        (_("listens at"), info.endpoint),
        (_("pairs at"), info.pairing),
        (_("names of this machine"), ", ".join(info.hosts)),
        (_("words of its key"), info.fingerprint),
    ]
    pairs([(label, value) for label, value in rows if value])
