"""`assistant service`: the daemon as a service of the machine, or of one user."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from clients.cli.output import note, pairs, print_json
from clients.cli.settings import HELP, Settings, json_option, pass_settings
from clients.cli.sizes import memory_size
from clients.cli.sizes import size as size_type
from clients.i18n import _, marked

if TYPE_CHECKING:
    from clients.service.units import Wanted

F = TypeVar("F", bound=Callable[..., Any])
_ACTIVE = {
    "active": marked("runs"),
    "inactive": marked("does not run"),
    "activating": marked("is starting"),
    "deactivating": marked("is stopping"),
    "reloading": marked("reloads its settings"),
    "failed": marked("has failed"),
}


def _scope(command: F) -> F:
    """--user and --system."""
    system = click.option(
        "--system/--user",
        "system",
        default=None,
        help="Of the machine, or of this user; by default of this user, unless that is root.",
    )
    return system(command)


def _is_system(system: bool | None) -> bool:
    return os.geteuid() == 0 if system is None else system


@click.group(context_settings=HELP)
def service() -> None:
    """Have the operating system start, watch and limit the daemon.

    \b
    assistant service install                        for you: it runs while you are logged in
    sudo assistant service install --system          for the machine: from boot on
    sudo assistant service install --memory-budget 400M
    assistant service status
    assistant service logs --follow
    assistant service uninstall                      models and sessions stay

    With systemd the socket is there first and starts the daemon at the first question; a daemon
    that hangs or fails is started again. docs/service.md tells what the units do.
    """


@service.command()
@_scope
@click.option("--voice", is_flag=True, help="The voice as well.")
@click.option("--gateway", is_flag=True, help="The page for phones as well.")
@click.option("--memory-budget", type=size_type, metavar="SIZE|none", help="Set and enforce it.")
@click.option("--offline", is_flag=True, help="Leave the daemon no network at all.")
@click.option("--on-demand", is_flag=True, help="Start the daemon at its first client only.")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write the units below FOLDER, for a package, and start nothing.",
)
@click.option(
    "--programs",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where assistantd and assistant are; by default where this one is.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be written, and stop.")
@json_option
@pass_settings
def install(
    settings: Settings,
    system: bool | None,
    voice: bool,
    gateway: bool,
    memory_budget: int | None,
    offline: bool,
    on_demand: bool,
    root: Path | None,
    programs: Path | None,
    dry_run: bool,
) -> None:
    """Install the service, and start it.

    Again with other options changes it. What a drop-in of your own says (`systemctl edit`) stays.
    """
    from clients.service import checks, systemd
    from clients.service.units import Wanted

    if sys.platform == "darwin" and root is None:
        _install_agent(settings, programs, dry_run=dry_run)
        return
    if root is not None and programs is not None:
        folder = programs  # on the machine that the package is for
    else:
        folder = checks.programs_folder(programs)
    if not folder.is_absolute():
        raise click.UsageError(_("--programs needs an absolute path"))
    wanted = Wanted(_is_system(system), folder, root, voice, gateway, offline, memory_budget)
    if dry_run:
        planned = systemd.planned(wanted)
        if settings.json:
            print_json({"files": {str(file.path): file.text for file in planned}})
        for file in [] if settings.json else planned:
            click.echo(f"# {file.path}\n{file.text}")
        return
    tell = (lambda text: None) if settings.json else note
    written = systemd.install(wanted, tell, on_demand=on_demand)
    if settings.json:
        print_json({"written": [str(file.path) for file in written]})
        return
    for file in written:
        click.echo(_("wrote {path}").format(path=file.path))
    if root is None:
        _say_what_next(wanted)


def _install_agent(settings: Settings, programs: Path | None, *, dry_run: bool) -> None:
    from clients.service import checks, launchd, units

    folder = checks.programs_folder(programs)
    if dry_run:
        file = units.agent(folder)
        click.echo(f"# {file.path}\n{file.text}")
        return
    agent = launchd.install(folder)
    if settings.json:
        print_json({"written": [str(agent.path)]})
    else:
        click.echo(_("wrote {path}").format(path=agent.path))


def _say_what_next(wanted: "Wanted") -> None:
    """What is left to do by the user."""
    from clients.service import checks, systemd
    from clients.service.units import DAEMON

    says = systemd.Manager(system=wanted.system).show(DAEMON).get("StatusText", "")
    if says:
        click.echo(_("the daemon: {says}").format(says=says))
    if wanted.system:
        name = os.environ.get("SUDO_USER") or _("NAME")
        note(
            _("to let somebody use it: sudo usermod -aG assistantd {user}, and a new login").format(
                user=name
            )
        )
    elif systemd.lingers() is False:
        note(
            _(
                "it runs while you are logged in; to have it run from boot on: "
                "sudo loginctl enable-linger {user}"
            ).format(user=checks.user_name())
        )
    note(_('it can be asked now: assistant "What is the capital of France?"'))


@service.command()
@_scope
@click.option("--purge", is_flag=True, help="Delete models, sessions and settings, too; it asks.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_settings
def uninstall(settings: Settings, system: bool | None, purge: bool, yes: bool) -> None:
    """Stop the service and remove it. Models, sessions and settings stay, unless --purge."""
    from clients.service import checks, launchd, systemd, units
    from clients.service.purge import delete, places

    tell = (lambda text: None) if settings.json else note
    wide = _is_system(system) and sys.platform != "darwin"
    if sys.platform == "darwin":
        removed = launchd.uninstall()
    elif purge and not checks.has_systemd(system=wide):
        removed = []  # where there is no systemd, a user's data can be deleted all the same
    else:
        removed = systemd.uninstall(system=wide, tell=tell)
    doomed = places(system=wide) if purge else []
    if doomed:
        names = ", ".join(map(str, doomed))
        question = _("delete {paths}, with all models, sessions and keys?").format(paths=names)
        if not yes:
            click.confirm(question, abort=True, err=True)
        delete(doomed, system=wide)
        removed += doomed
    kept = _kept(system=wide)
    if settings.json:
        print_json({"removed": [str(path) for path in removed], "kept": [str(p) for p in kept]})
        return
    if not removed:
        click.echo(_("there was no service"))
    for path in removed:
        click.echo(_("removed {path}").format(path=path))
    for path in kept:
        click.echo(_("kept {path}: it is yours").format(path=path))
    if wide and units.DATA in kept:
        note(
            _(
                "to remove these, too, with all models and sessions: "
                "sudo rm -r {paths} && sudo userdel assistantd && sudo userdel assistantd-kernels"
            ).format(paths=" ".join(map(str, kept)))
        )


def _kept(*, system: bool) -> list[Path]:
    """The user's data that is there."""
    from clients.service import units

    if system:
        states = [units.DATA, units.DATA.with_name("assistantd-gateway")]
        states.append(units.DATA.with_name("assistantd-voice"))
    else:
        home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        states = [Path(home).expanduser() / "assistantd"]
    places = [*states, units.config_file(system=system).parent]
    return [path for path in places if path.exists()]


@service.command()
@_scope
@json_option
@pass_settings
def status(settings: Settings, system: bool | None) -> int:
    """How the service is. Exit code 3 if it does not run."""
    from clients.service import launchd, systemd

    if sys.platform == "darwin":
        found = launchd.status()
    else:
        found = systemd.status(system=_is_system(system))
    if settings.json:
        print_json(found)
    elif not found["units"]:
        click.echo(_("no service is installed; install it with `assistant service install`"))
    else:
        rows = [(unit, _described(how)) for unit, how in found["units"].items()]
        pairs([*rows, (_("listens at"), found["socket"])])
        if found.get("lingers") is False:
            note(_("it ends when you log out; see `loginctl enable-linger`"))
    daemon = next(iter(found["units"].values()), None)
    return 0 if daemon is not None and daemon["active"] == "active" else 3


def _described(how: dict[str, Any]) -> str:
    state = how["active"]
    parts = [_(_ACTIVE[state]) if state in _ACTIVE else state]
    if how.get("says"):
        parts.append(how["says"])
    if how["pid"]:
        parts.append(_("process {pid}").format(pid=how["pid"]))
    if how["pid"] and how.get("memory"):
        if how.get("memory_max"):
            parts.append(
                _("{size} of {limit}").format(
                    size=memory_size(how["memory"]), limit=memory_size(how["memory_max"])
                )
            )
        else:
            parts.append(memory_size(how["memory"]))
    if how.get("restarts"):
        parts.append(_("started again {n} times").format(n=how["restarts"]))
    if state == "failed" and how.get("result"):
        parts.append(_("because of: {result}").format(result=how["result"]))
    return "; ".join(parts)


@service.command()
@_scope
@click.option("-f", "--follow", is_flag=True, help="Go on as there is more, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0), default=50, show_default=True)
def logs(system: bool | None, follow: bool, lines: int) -> int:
    """Show the service's log."""
    import subprocess

    from clients.service import launchd, systemd
    from clients.service.errors import ServiceError
    from clients.service.units import DAEMON

    if sys.platform == "darwin":
        command = launchd.log_command(follow=follow, n_lines=lines)
    else:
        more = ["--lines", str(lines), *(["--follow"] if follow else [])]
        command = systemd.Manager(system=_is_system(system)).log_command(DAEMON, *more)
    try:
        return subprocess.run(command).returncode
    except FileNotFoundError as absent:
        raise ServiceError(
            _("there is no {program} on this machine, so that the log cannot be shown").format(
                program=command[0]
            )
        ) from absent
