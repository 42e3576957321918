"""`assistant doctor`: what is wrong around the daemon, and how to mend it."""

import os
import shutil
import sys
from typing import TYPE_CHECKING

import click

from clients.cli.output import clean
from clients.cli.settings import HELP, Settings, common, pass_settings
from clients.i18n import CATALOGUE, _, ngettext

if TYPE_CHECKING:
    from clients.doctor.checks import Check
    from clients.doctor.finding import Finding

_MARKS = {"ok": "✓", "skipped": "-", "warning": "!", "problem": "✗"}
_ASCII_MARKS = {"ok": "+", "skipped": "-", "warning": "!", "problem": "x"}
_COLOURS = {"ok": "32", "skipped": "2", "warning": "33", "problem": "31"}


@click.command(context_settings=HELP)
@click.argument("names", metavar="[CHECK]…", nargs=-1)
@click.option("--thorough", is_flag=True, help="Read the whole model, and compare it.")
@click.option("-v", "--verbose", is_flag=True, help="Show ids, reasons and details of all.")
@click.option("--list", "list_them", is_flag=True, help="Show the checks there are, and stop.")
@common
@pass_settings
def doctor(
    settings: Settings, names: tuple[str, ...], thorough: bool, verbose: bool, list_them: bool
) -> int:
    """Look for whatever may be wrong, and say how to mend it. Nothing is changed.

    \b
    assistant doctor                  look at everything
    assistant doctor running storage  at these groups, or checks
    assistant doctor --thorough       read the whole model, too
    assistant doctor --json           for programs: id, severity, found, why, mend

    It works while the daemon is away or broken. Exit code 1 if there is a problem (✗); what is
    marked ! works, but could be better. docs/observability.md lists all that can be found.
    """
    from clients.doctor.checks import CHECKS, chosen, run
    from clients.doctor.context import Context

    if list_them:
        _list(CHECKS)
        return 0
    try:
        checks = chosen(names)
    except KeyError as unknown:
        text = _("there is no check {name}; `assistant doctor --list` shows them")
        raise click.UsageError(text.format(name=unknown.args[0])) from None
    if settings.json:
        CATALOGUE.use_english()
    context = Context(settings.endpoint, thorough, _say)
    show = _Table(verbose) if not settings.json else None
    found: list[tuple[Check, Finding]] = []
    for check, finding in run(checks, context):
        found.append((check, finding))
        if show is not None:
            show(check, finding)
    findings = [finding for _check, finding in found]
    if settings.json:
        _print_json(found)
    else:
        _sum_up(findings)
    return int(any(finding.severity == "problem" for finding in findings))


def _say(text: str) -> None:
    """What takes more than a moment, to whoever looks on."""
    if sys.stderr.isatty():
        print(f"\x1b[2m{text}\x1b[0m", file=sys.stderr, flush=True)


def _list(checks: "tuple[Check, ...]") -> None:
    from clients.cli.output import table
    from clients.doctor.checks import GROUPS

    rows = [(check.name, check.group, _(check.title), _(GROUPS[check.group])) for check in checks]
    table((_("check"), _("group"), _("looks at"), ""), rows)


class _Table:
    """Prints findings as they come, under the names of their groups."""

    def __init__(self, verbose: bool) -> None:
        from assistantd.localisation.width import columns
        from clients.doctor.checks import CHECKS

        self._verbose, self._group = verbose, ""
        self._width = max(columns(_(check.title)) for check in CHECKS)
        self._terminal = sys.stdout.isatty()
        dumb = os.environ.get("TERM") == "dumb"
        self._colour = self._terminal and not dumb and not os.environ.get("NO_COLOR")
        encoding = (sys.stdout.encoding or "ascii").lower()
        self._marks = _MARKS if encoding.startswith("utf") else _ASCII_MARKS

    def __call__(self, check: "Check", finding: "Finding") -> None:
        from assistantd.localisation.width import columns, padded
        from clients.doctor.checks import GROUPS

        if check.group != self._group:
            self._group = check.group
            print(self._painted(_(GROUPS[check.group]), "1"))
        mark = self._painted(self._marks[finding.severity], _COLOURS[finding.severity])
        title = padded(_(check.title), self._width)
        self._print(f"  {mark} {title}  ", finding.found, self._width + 6)
        indent = " " * (self._width + 6)
        if finding.severity in ("warning", "problem"):
            for label, text in ((_("why"), finding.why), (_("mend"), finding.mend)):
                if text:
                    head = f"{indent}{self._painted(label, '2')}: "
                    self._print(head, text, self._width + 8 + columns(label))
        if self._verbose:
            print(f"{indent}{self._painted(finding.id, '2')}")
            for name, value in finding.details.items():
                print(f"{indent}  {name} = {_one_line(str(value))}")

    def _print(self, head: str, text: str, indent: int) -> None:
        """A text in one line; on a terminal in several that fit beside `indent` columns."""
        from assistantd.localisation.width import folded

        # a path may hold anything, and a terminal believes anything
        lines = [_one_line(text)]
        if self._terminal:
            lines = folded(lines[0], max(20, shutil.get_terminal_size().columns - indent))
        print(head + f"\n{' ' * indent}".join(lines), flush=True)

    def _painted(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text


def _one_line(text: str) -> str:
    return " ".join(clean(text).split())


def _sum_up(findings: "list[Finding]") -> None:
    n_problems = sum(finding.severity == "problem" for finding in findings)
    n_warnings = sum(finding.severity == "warning" for finding in findings)
    if not n_problems and not n_warnings:
        print(_("nothing is wrong"))
        return
    problems = ngettext("{n} problem", "{n} problems", n_problems).format(n=n_problems)
    warnings = ngettext("{n} warning", "{n} warnings", n_warnings).format(n=n_warnings)
    print(f"{problems}, {warnings}")


def _print_json(found: "list[tuple[Check, Finding]]") -> None:
    from clients.cli.output import print_json

    worst = {finding.severity for _check, finding in found}
    print_json(
        {
            "healthy": "problem" not in worst,
            "findings": [
                {
                    "id": finding.id,
                    "check": check.name,
                    "group": check.group,
                    "severity": finding.severity,
                    "found": finding.found,
                    "why": finding.why,
                    "mend": finding.mend,
                    "details": finding.details,
                }
                for check, finding in found
            ],
        }
    )
