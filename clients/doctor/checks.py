"""The table of all checks, and running them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from clients.doctor import (
    daemon,
    files,
    installation,
    machine,
    memory,
    network,
    service,
    storage,
    voice,
)
from clients.doctor.context import Context, UnexaminedError
from clients.doctor.finding import Finding, problem, skipped
from clients.i18n import _, marked


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: what `assistant doctor NAME` takes; ids of findings begin with it.
        group: of the table; it may be named instead.
        title: what is looked at.
    """

    name: str
    group: str
    title: str
    look: Callable[[Context], Iterator[Finding]]


GROUPS = {
    "installation": marked("Installation"),
    "machine": marked("Machine"),
    "limits": marked("Memory"),
    "storage": marked("Storage"),
    "running": marked("Daemon"),
    "data": marked("Model and conversations"),
    "voice": marked("Voice"),
    "reach": marked("Network"),
    "services": marked("Service"),
}
CHECKS = (
    Check("python", "installation", marked("Python"), installation.check_python),
    Check("packages", "installation", marked("packages"), installation.check_packages),
    Check("programs", "installation", marked("commands"), installation.check_programs),
    Check("program", "installation", marked("assistantd"), installation.check_program),
    Check("extras", "installation", marked("extras"), installation.check_extras),
    Check("config", "installation", marked("settings"), daemon.check_config),
    Check("processor", "machine", marked("processor"), machine.check_processor),
    Check("kernels", "machine", marked("kernels"), machine.check_kernels),
    Check("governor", "machine", marked("frequency"), machine.check_governor),
    Check("throttling", "machine", marked("heat and power"), machine.check_throttling),
    Check("clock", "machine", marked("clock"), machine.check_clock),
    Check("terminal", "machine", marked("terminal"), machine.check_terminal),
    Check("memory", "limits", marked("budget"), memory.check_memory),
    Check("cgroup", "limits", marked("limit"), memory.check_cgroup),
    Check("swap", "limits", marked("swap"), memory.check_swap),
    Check("disk-space", "storage", marked("room"), storage.check_disk_space),
    Check("disk-speed", "storage", marked("speed"), storage.check_disk_speed),
    Check("file-systems", "storage", marked("file systems"), storage.check_file_systems),
    Check("permissions", "storage", marked("permissions"), storage.check_permissions),
    Check("socket", "running", marked("socket"), daemon.check_socket),
    Check("lock", "running", marked("lock"), daemon.check_lock),
    Check("daemon", "running", marked("daemon"), daemon.check_daemon),
    Check("crashes", "running", marked("crashes"), daemon.check_crashes),
    Check("model", "data", marked("model"), files.check_model),
    Check("database", "data", marked("databases"), files.check_database),
    Check("set-aside", "data", marked("set aside"), files.check_set_aside),
    Check("voice", "voice", marked("voice"), voice.check_voice),
    Check("network", "reach", marked("network"), network.check_network),
    Check("certificates", "reach", marked("certificates"), network.check_certificates),
    Check("mdns", "reach", marked("being found"), network.check_mdns),
    Check("service", "services", marked("units"), service.check_service),
    Check("linger", "services", marked("lingering"), service.check_linger),
    Check("gateway", "services", marked("gateway"), daemon.check_gateway),
)


def chosen(names: Sequence[str]) -> list[Check]:
    """The checks of these names, or of groups of these names; all of them without any.

    Raises:
        KeyError: there is no such check.
    """
    for name in names:
        if name not in GROUPS and not any(check.name == name for check in CHECKS):
            raise KeyError(name)
    return [check for check in CHECKS if not names or {check.name, check.group} & {*names}]


def run(checks: Iterable[Check], context: Context) -> Iterator[tuple[Check, Finding]]:
    """Run checks one after the other; a check that fails itself is a finding, too."""
    for check in checks:
        try:
            yield from ((check, finding) for finding in check.look(context))
        except UnexaminedError:
            yield check, skipped(check.name, _("assistantd does not run, so it cannot be asked"))
        except Exception as error:  # what is broken here must not hide the rest
            text = _("the check itself failed: {kind}: {problem}")
            yield (
                check,
                problem(
                    f"{check.name}.failed",
                    text.format(kind=type(error).__name__, problem=error),
                    _("what it looks at is not known"),
                    _("see whether the file or program that is named there is yours to read"),
                ),
            )
