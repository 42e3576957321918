"""`assistant connect`: the other end of `assistant pair`, on another computer."""

import re
import socket
import sys
from typing import TYPE_CHECKING

import click

from clients.cli.output import clean, note, print_json, table
from clients.cli.settings import HELP, Settings, json_option, pass_settings
from clients.errors import AssistantError
from clients.i18n import _

if TYPE_CHECKING:
    from clients.discovery import Found
    from clients.pairing import Paired
    from clients.servers import Server

_MAX_NAME = 64  # as protocol.DeviceName


@click.command(context_settings=HELP)
@click.argument("host", required=False, metavar="[HOST[:PORT]]")
@click.argument("code", required=False)
@click.option("--name", metavar="NAME", help="What the daemon is called here; its host's if not.")
@click.option(
    "--device-name", metavar="NAME", help="What this machine is called there; its own if not."
)
@click.option("--list", "list_", is_flag=True, help="Show the daemons that this machine knows.")
@click.option("--forget", metavar="NAME", help="Delete the keys for one.")
@click.option(
    "--wait",
    type=click.FloatRange(0.1, 60),
    default=5.0,
    metavar="SECONDS",
    help="How long to look for daemons without HOST; 5.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask whether the words are the same.")
@json_option
@pass_settings
def connect(
    settings: Settings,
    host: str | None,
    code: str | None,
    name: str | None,
    device_name: str | None,
    list_: bool,
    forget: str | None,
    wait: float,
    yes: bool,
) -> None:
    """Use the assistant that runs on another computer.

    \b
    assistant pair                          over there: shows a code of six digits
    assistant connect                       here: looks for it on the network
    assistant connect 192.0.2.7 123456      or says where it is
    assistant --endpoint NAME "Hello"       then it can be asked by its name
    assistant connect --list                which are known; --forget NAME

    Nobody who listens learns the code or what is said afterwards. Both sides show four words: if
    they are not the same, somebody is in between.
    """
    if list_ or forget is not None:
        if host is not None or (list_ and forget is not None):
            raise click.UsageError(_("--list and --forget stand alone"))
        if forget is not None:
            _forget(settings, forget)
        else:
            _list(settings)
        return
    if name is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise click.UsageError(
            _("--name {name!r}: use up to 64 letters, digits, '.', '_' and '-'").format(name=name)
        )
    host, code = _sort(host, code)
    address, port = _address(host) if host is not None else _look_around(settings, wait)
    _check_name(name)
    if code is None:
        code = _ask_for_code()
    _connect(settings, (address, port), code, name, device_name or socket.gethostname(), yes)


def _connect(
    settings: Settings,
    place: tuple[str, int],
    code: str,
    name: str | None,
    device_name: str,
    yes: bool,
) -> None:
    from clients import servers
    from clients.cli.pair import confirmed
    from clients.pairing import pair

    paired = pair(*place, code, device_name[:_MAX_NAME])
    server = _server(paired, name or _free_name(paired, servers.load()))
    ask = not yes and not settings.json and sys.stdin.isatty() and sys.stderr.isatty()
    if not settings.json:
        click.echo(clean(_("The four words:  {words}").format(words=server.words)))
    if ask:
        question = _("Does `assistant pair` show the same words there?")
        if not confirmed(question, lambda: _not_kept(server)):
            _not_kept(server)
            raise AssistantError(
                _("nothing was stored: somebody is in between; see docs/network.md")
            )
    servers.put(server)
    if settings.json:
        print_json(_public(server))
        return
    who = _("this machine may use the assistant at {endpoint}, as device {id}")
    click.echo(clean(who.format(endpoint=server.endpoint, id=server.device)))
    click.echo(clean(_('Try it:  assistant --endpoint {name} "Hello"').format(name=server.name)))


def _server(paired: "Paired", name: str) -> "Server":
    from clients.servers import Server

    return Server(
        name=name,
        endpoint=paired.endpoint,
        server_key=paired.server_key,
        public_key=paired.public_key,
        secret_key=paired.secret_key,
        device=paired.device.id,
        words=paired.words,
    )


def _free_name(paired: "Paired", known: "list[Server]") -> str:
    """Its machine's name; with a number if another daemon is called that here."""
    wanted = re.sub(r"[^A-Za-z0-9._-]+", "-", paired.host).strip("-")[:60] or "assistantd"
    taken = {server.name for server in known if server.server_key != paired.server_key}
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    return name


def _check_name(name: str | None) -> None:
    """Before a code is used up."""
    from clients import servers

    known = servers.load()  # and whether the file can be read
    if name is not None and any(server.name == name for server in known):
        raise AssistantError(
            _(
                "there is a daemon called {name} already; choose another --name, "
                "or forget that one first with `assistant connect --forget {name}`"
            ).format(name=name)
        )


def _not_kept(server: "Server") -> None:
    text = _("keys were not stored; `assistant devices revoke {id}` over there undoes the rest")
    note(text.format(id=server.device))


# --- where, and which code -------------------------------------------------------------------


def _sort(host: str | None, code: str | None) -> tuple[str | None, str | None]:
    """A code alone is no host, and the text of a QR code is both."""
    from clients.pairing import is_code

    if host is not None and code is None:
        scanned = re.fullmatch(r"https?://(\[[^]]+\]|[^/:#]+)(?::\d+)?/?[^#]*#(.+)", host)
        if scanned:
            return scanned[1], scanned[2]
        if is_code(host):
            return None, host
    return host, code


def _address(host: str) -> tuple[str, int]:
    """HOST, HOST:PORT, an address of IPv6, [ADDRESS]:PORT."""
    from clients.pairing import DEFAULT_PORT

    host = host.removeprefix("tcp://")
    found = re.fullmatch(r"(?:\[([^]]+)\]|([^:]+))(?::([0-9]{1,5}))?", host)
    if found is None and host.count(":") > 1:
        return host, DEFAULT_PORT
    if found is None or not 0 < int(found[3] or DEFAULT_PORT) < 65535:
        raise click.UsageError(_("{host!r}: write HOST or HOST:PORT").format(host=host))
    return found[1] or found[2], int(found[3] or DEFAULT_PORT)


def _look_around(settings: Settings, seconds: float) -> tuple[str, int]:
    from clients.discovery import discover

    if not settings.json and sys.stderr.isatty():
        note(_("looking for daemons on the network"))
    found = discover(seconds)
    if not found:
        raise AssistantError(
            _(
                "found no daemon on the network. Is `assistant network on` there? Some networks "
                "keep devices apart: then say where it is, as in `assistant connect 192.0.2.7`"
            )
        )
    if len(found) > 1:
        if not settings.json:
            _show_found(found)
        raise AssistantError(
            _("found {n} daemons; say which one: assistant connect {host}").format(
                n=len(found), host=_written(found[0])
            )
        )
    if not settings.json:
        _show_found(found)
    return found[0].host, found[0].port


def _show_found(found: "list[Found]") -> None:
    table(
        (_("daemon"), _("address"), _("its words")),
        [(clean(one.name), _written(one), clean(one.words)) for one in found],
    )


def _written(one: "Found") -> str:
    return f"[{one.host}]:{one.port}" if ":" in one.host else f"{one.host}:{one.port}"


def _ask_for_code() -> str:
    from clients.pairing import read_code

    if not sys.stdin.isatty():
        code = sys.stdin.readline().strip()
        if not code:
            raise click.UsageError(_("give the code that `assistant pair` shows over there"))
    else:
        text = _("The code that `assistant pair` shows over there")
        code = click.prompt(text, type=str, err=True)
    read_code(code)
    return code


# --- those that are known --------------------------------------------------------------------


def _public(server: "Server") -> dict[str, str]:
    """Without the secret key."""
    import msgspec

    fields: dict[str, str] = msgspec.structs.asdict(server)
    del fields["secret_key"]
    return fields


def _list(settings: Settings) -> None:
    from clients import servers

    known = servers.load()
    if settings.json:
        print_json([_public(server) for server in known])
        return
    table(
        (_("daemon"), _("address"), _("device"), _("words")),
        [(one.name, one.endpoint, one.device, one.words) for one in known],
    )


def _forget(settings: Settings, name: str) -> None:
    from clients import servers

    known = servers.load()
    gone = [server for server in known if server.name == name]
    if not gone:
        text = _("no daemon is called {name!r} here; see `assistant connect --list`")
        raise AssistantError(text.format(name=name))
    servers.save([server for server in known if server.name != name])
    if settings.json:
        print_json(_public(gone[0]))
        return
    text = _("{name} is forgotten; over there, `assistant devices revoke {id}` closes the door")
    click.echo(clean(text.format(name=name, id=gone[0].device)))
