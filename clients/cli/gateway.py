"""`assistant gateway`: the page for phones and watches, and OpenAI's API for programs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clients.cli.output import note, print_json
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.i18n import _

if TYPE_CHECKING:
    from clients.web.gateway import Addresses
    from clients.web.metrics import Readers

REPORTS_KEPT = 10
"""Of crashes."""
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(context_settings=HELP)
@click.option("--host", metavar="ADDRESS", help="Speak TLS on this interface only.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Of HTTP, for this machine only.",
)
@click.option(
    "--tls-port",
    type=click.IntRange(0, 65535),
    default=8443,
    show_default=True,
    help="Of HTTPS, for phones and other machines.",
)
@click.option("--lan", is_flag=True, help="Speak TLS though the daemon's network is off.")
@click.option("--cert", type=_FILE, help="Your own certificate with its chain, PEM.")
@click.option("--key", type=_FILE, help="Its private key, PEM.")
@click.option(
    "--metrics",
    type=click.Choice(["off", "local", "key"]),
    default="off",
    show_default=True,
    help="Who may read /metrics, for Prometheus: nobody, this machine, or programs with a key.",
)
@common
@pass_settings
def gateway(
    settings: Settings,
    host: str | None,
    port: int,
    tls_port: int,
    lan: bool,
    cert: Path | None,
    key: Path | None,
    metrics: "Readers",
) -> None:
    """Let phones, watches and programs ask, by a web page and by OpenAI's API.

    \b
    assistant gateway                      http://localhost:8080/, for this machine
    assistant network on                   and now https://…:8443/ for the house
    assistant pair                         a code for a phone
    assistant devices add-key "my editor"  a key for a program

    Others can connect only while `assistant network on` holds (or with --lan), only by TLS, and
    see nothing before they are paired. docs/web.md tells how a phone comes to trust it.
    """
    import asyncio

    from assistantd.log import set_up
    from assistantd.log_crashes import Crashes, default_folder
    from clients.address import locate
    from clients.cli.connection import find
    from clients.errors import AssistantError, NoAnswer
    from clients.web.errors import GatewayError

    if (cert is None) != (key is None):
        raise click.UsageError(_("--cert and --key belong together; give both"))
    set_up("info", "json" if settings.json else "text", program="assistant-gateway")
    try:
        from clients.web.gateway import Gateway, Options
    except ImportError as missing:
        raise GatewayError(
            _("the Python package {name} is not installed; pip install 'assistantd[web]'").format(
                name=missing.name
            )
        ) from missing
    endpoint = settings.endpoint
    try:
        endpoint = find(settings, start=True)
    except NoAnswer as absent:
        # it may come later; the page says so until then
        note(_("{problem}; serving nevertheless").format(problem=absent))
    if locate(endpoint)[1] is not None:
        raise GatewayError(
            _("the gateway runs on the daemon's own machine; start it there, for phones as well")
        )
    options = Options(endpoint, host, port, tls_port, lan, cert, key, metrics)

    async def serve() -> None:
        await Gateway(options, _tell_json if settings.json else _tell).run()

    expected = (AssistantError, click.ClickException, OSError)
    with Crashes(default_folder(), "assistant-gateway", REPORTS_KEPT, expected=expected):
        asyncio.run(serve())


def _tell(found: "Addresses") -> None:
    note(_("this machine: {address}").format(address=" ".join(found.plain)))
    if found.secure:
        note(_("the house: {address}").format(address=" ".join(found.secure)))
        if found.authority:
            note(_("SHA-256 of ca.crt: {fingerprint}").format(fingerprint=found.authority))
    elif found.wanted:
        note(_("nobody else: HTTPS could not start, see above"))
    else:
        note(_("nobody else; `assistant network on` lets paired devices in"))


def _tell_json(found: "Addresses") -> None:
    authority = found.authority or None
    print_json({"plain": found.plain, "secure": found.secure, "authority": authority})
    sys.stdout.flush()
