"""`assistant devices`: who may use the assistant from elsewhere."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from clients.cli.output import ago, clean, note, pairs, print_json, table
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.errors import AssistantError
from clients.i18n import _, marked

if TYPE_CHECKING:
    from assistantd.protocol import DeviceInfo, Devices, Done, Limits
    from clients.client import Client

_KINDS = {
    "curve": marked("computer or watch"),
    "web": marked("browser"),
    "api": marked("key for programs"),
}
F = TypeVar("F", bound=Callable[..., Any])


class NoSuchDevice(AssistantError):  # noqa: N818  as its base
    """No device, or more than one, is meant by what was written."""


@click.group(context_settings=HELP)
def devices() -> None:
    """See, limit and shut out the devices that may use the assistant from elsewhere.

    \b
    assistant devices list
    assistant devices revoke phone              at once, for good
    assistant devices limit phone --max-tokens 200
    assistant devices add-key editor            for programs that speak OpenAI's API

    A DEVICE is written as its id, the first letters of it, or its name. `assistant pair` lets
    another one in.
    """


@devices.command("list")
@common
@pass_settings
def list_(settings: Settings) -> None:
    """All devices that were let in."""
    from assistantd.protocol import Devices

    found = _ask(settings, Devices(op="list")).devices or []
    if settings.json:
        print_json(found)
        return
    if not found:
        note(_("no device is paired; `assistant pair` lets one in"))
        return
    table(
        (_("device"), _("name"), _("kind"), _("rights"), _("last seen")),
        [(d.id, d.name, _(_KINDS[d.kind]), d.rights, _last_seen(d)) for d in found],
    )


@devices.command()
@click.argument("device")
@common
@pass_settings
def show(settings: Settings, device: str) -> None:
    """One device: its rights, its limits, its words."""
    from clients.cli.connection import connect

    with connect(settings, start=True) as client:
        found = find(client, device)
    _show(settings, found)


@devices.command()
@click.argument("names", nargs=-1, required=True, metavar="DEVICE...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@common
@pass_settings
def revoke(settings: Settings, names: tuple[str, ...], yes: bool) -> None:
    """Shut devices out at once, for good; what is being answered to them ends."""
    import sys

    from assistantd.protocol import Devices
    from clients.cli.connection import connect

    with connect(settings, start=True) as client:
        found = [find(client, name) for name in names]
        if not yes and sys.stdin.isatty() and sys.stderr.isatty():
            meant = ", ".join(f"{device.name} ({device.id})" for device in found)
            question = _("Shut out {names} for good?").format(names=clean(meant))
            click.confirm(question, abort=True, err=True)
        for device in found:
            done = client.request(Devices(op="revoke", id=device.id))
            if settings.json:
                print_json(done)
            else:
                click.echo(clean(_("{name} is shut out").format(name=device.name)))


@devices.command()
@click.argument("device")
@click.argument("name")
@common
@pass_settings
def rename(settings: Settings, device: str, name: str) -> None:
    """Give a device another name."""
    from assistantd.protocol import Devices
    from clients.cli.connection import connect

    _check_name(name)
    with connect(settings, start=True) as client:
        found = find(client, device)
        done = client.request(Devices(op="rename", id=found.id, name=name))
    if settings.json:
        print_json(done)
    else:
        click.echo(clean(_("{id} is now called {name!r}").format(id=found.id, name=name)))


def _with_limits(command: F) -> F:
    """The options that say what a device may use."""
    for option in (
        click.option(
            "--concurrent", type=click.IntRange(1, 64), metavar="N", help="Answers at a time."
        ),
        click.option(
            "--max-tokens", type=click.IntRange(1, 1_000_000), metavar="N", help="Of an answer."
        ),
        click.option(
            "--per-minute", type=click.IntRange(1, 100_000), metavar="N", help="Requests a minute."
        ),
        click.option(
            "--rights",
            type=click.Choice(["chat", "admin"]),
            help="chat: ask, and its own sessions. admin: everything you may.",
        ),
    ):
        command = option(command)
    return command


@devices.command()
@click.argument("device")
@_with_limits
@common
@pass_settings
def limit(settings: Settings, /, device: str, rights: Any, **limits: int | None) -> None:
    """Change what a device may do, and how much. What is not given stays."""
    from assistantd.protocol import Devices
    from clients.cli.connection import connect
    from clients.requests import present

    if rights is None and not any(limits.values()):
        raise click.UsageError(
            _("say what to change: --rights, --per-minute, --max-tokens or --concurrent")
        )
    with connect(settings, start=True) as client:
        found = find(client, device)
        request = Devices(
            op="limit", id=found.id, rights=rights, limits=_changed(found.limits, **limits)
        )
        _show(settings, present(client.request(request).device, "device"))


@devices.command("add-key")
@click.argument("name")
@_with_limits
@common
@pass_settings
def add_key(settings: Settings, /, name: str, rights: Any, **limits: int | None) -> None:
    """Make a key for a program that speaks OpenAI's API, and print it: this once only.

    \b
    assistant devices add-key editor
    OPENAI_API_KEY=$(assistant devices add-key notebook) ...

    The program also needs the address of `assistant gateway`, with /v1 at its end.
    """
    from assistantd.protocol import Devices, Limits
    from clients.requests import present

    _check_name(name)
    request = Devices(
        op="add", name=name, rights=rights or "chat", limits=_changed(Limits(), **limits)
    )
    done = _ask(settings, request)
    token = present(done.token, "token")
    if settings.json:
        print_json(done)
        return
    click.echo(token)
    note(_("this key is not shown again; `assistant devices revoke` makes it void"))


def find(client: "Client", wanted: str) -> "DeviceInfo":
    """The device that is meant: by its id, its name, or the first letters of its id.

    Raises:
        NoSuchDevice: there is none, or there are several.
    """
    from assistantd.protocol import Devices

    known = client.request(Devices(op="list")).devices or []
    for found in (
        [device for device in known if device.id == wanted],
        [device for device in known if device.name == wanted],
        [device for device in known if device.id.startswith(wanted)] if wanted else [],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            which = ", ".join(f"{device.id} ({device.name})" for device in found)
            raise NoSuchDevice(
                _("{name!r} may be one of {which}; write its id").format(name=wanted, which=which)
            )
    raise NoSuchDevice(
        _("there is no device {name!r}; see `assistant devices list`").format(name=wanted)
    )


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= 64:
        raise click.UsageError(_("a name has 1 to 64 characters"))


def _changed(
    limits: "Limits", per_minute: int | None, max_tokens: int | None, concurrent: int | None
) -> "Limits":
    from assistantd.protocol import Limits

    return Limits(
        requests_per_minute=per_minute or limits.requests_per_minute,
        max_tokens=max_tokens or limits.max_tokens,
        concurrent=concurrent or limits.concurrent,
    )


def _ask(settings: Settings, request: "Devices") -> "Done":
    from clients.cli.connection import connect

    with connect(settings, start=True) as client:
        return client.request(request)


def _last_seen(device: "DeviceInfo") -> str:
    return _("never") if device.last_seen_at is None else ago(device.last_seen_at)


def _show(settings: Settings, device: "DeviceInfo") -> None:
    if settings.json:
        print_json(device)
        return
    limits = device.limits
    rows = [
        (_("device"), device.id),
        (_("name"), device.name),
        (_("kind"), _(_KINDS[device.kind])),
        (_("rights"), device.rights),
        (_("requests a minute"), f"{limits.requests_per_minute:,}"),
        (_("tokens of an answer"), f"{limits.max_tokens:,}"),
        (_("answers at a time"), f"{limits.concurrent:,}"),
        (_("let in"), ago(device.created_at)),
        (_("last seen"), _last_seen(device)),
        (_("words"), device.words),
        (_("public key"), device.public_key or ""),
    ]
    pairs([(label, value) for label, value in rows if value])
