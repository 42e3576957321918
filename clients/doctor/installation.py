"""Checks of the installation: Python, packages, extras, and whether the daemon's program runs."""

import re
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from clients.doctor.context import Context, UnexaminedError
from clients.doctor.finding import Finding, ok, problem, skipped, warning
from clients.i18n import _

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?(?P<rules>[^;]*)(?:;(?P<when>.*))?"
)
_EXTRA = re.compile(r"extra\s*==\s*['\"](?P<name>[^'\"]+)['\"]")
EXTRAS = {
    "voice": ("sounddevice", "vosk", "soxr", "pymicro_vad", "pyaec", "markdown_it", "wyoming"),
    "network": ("spake2", "cryptography", "mnemonic", "zeroconf", "segno"),
    "web": ("starlette", "uvicorn", "websockets", "cryptography", "ifaddr"),
    "piper": ("piper",),
}
"""Extra → modules that it brings."""


def check_python(context: Context) -> Iterator[Finding]:
    """Is Python new enough?"""
    version = ".".join(map(str, context.python))
    needed = metadata.metadata("assistantd")["Requires-Python"] or ">=3.11"
    least = _numbers(needed.removeprefix(">="))
    if context.python[: len(least)] < least:
        yield problem(
            "python.old",
            _("this is Python {version}").format(version=version),
            _("assistantd needs Python {needed}").format(needed=needed),
            _("install a newer Python, and assistantd for it: pipx install --python python3 …"),
        )
        return
    text = _("Python {version} at {path}")
    yield ok("python", text.format(version=version, path=sys.executable), version=version)


def check_packages(context: Context) -> Iterator[Finding]:
    """Are the packages that assistantd needs there, and new enough?"""
    fine: dict[str, str] = {}
    for line in metadata.requires("assistantd") or []:
        found = _REQUIREMENT.match(line)
        assert found is not None, line
        if _EXTRA.search(found["when"] or ""):
            continue
        name = found["name"]
        why = _("the daemon or its client cannot start, or fails later")
        mend = f'{sys.executable} -m pip install --upgrade "{name}{found["rules"].strip()}"'
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            text = _("the package {name} is missing").format(name=name)
            yield problem("packages.missing", text, why, mend)
            continue
        least = re.search(r">=\s*([0-9.]+)", found["rules"])
        if least is not None and _numbers(version) < _numbers(least[1]):
            text = _("the package {name} is {version}, which is older than {least}")
            text = text.format(name=name, version=version, least=least[1])
            yield problem("packages.old", text, why, mend)
            continue
        fine[name] = version
    text = _("{n} packages are there, and new enough").format(n=len(fine))
    yield ok("packages", text, **fine)


def check_program(context: Context) -> Iterator[Finding]:
    """Does `assistantd` run at all?"""
    why = _("the daemon cannot start")
    again = f"{sys.executable} -m pip install --force-reinstall assistantd"
    try:
        found = context.examination
    except UnexaminedError as error:
        text = _("assistantd does not run: {problem}").format(problem=error)
        yield problem("program.broken", text, why, again)
        return
    if not found.problems.get("processor", "").startswith("EngineError: ASSISTANTD_SIMD"):
        for name, reason in found.problems.items():
            text = _("assistantd cannot look at its {part}: {problem}")
            text = text.format(part=name, problem=reason)
            yield problem("program.part", text, why, again, part=name)
        if found.problems:
            return
    yield ok("program", _("assistantd {version} runs").format(version=found.version))


def check_extras(context: Context) -> Iterator[Finding]:
    """Which extras are installed, and is one of them there by half only?"""
    whole = []
    for name, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        # some modules come with other packages, too: one alone is no sign that it was wanted
        if not missing:
            whole.append(name)
        elif len(missing) < len(modules) / 2:
            yield warning(
                "extras.incomplete",
                _("the extra [{name}] lacks {packages}").format(
                    name=name, packages=", ".join(missing)
                ),
                _("what it is for fails at its first use"),
                f"{sys.executable} -m pip install 'assistantd[{name}]'",
                missing=missing,
            )
    if whole:
        text = _("installed: {names}").format(names=", ".join(f"[{name}]" for name in whole))
        yield ok("extras", text, installed=whole)
    else:
        yield skipped("extras", _("no extra is installed; none is needed for text"))


def check_programs(context: Context) -> Iterator[Finding]:
    """Are the commands found, and those of this installation?"""
    from shutil import which

    for name in ("assistantd", "assistant"):
        own, found = Path(sys.executable).parent / name, which(name)
        if found is None:
            yield warning(
                "programs.path",
                _("the command {name} is not in $PATH").format(name=name),
                _("scripts and services that call it by its name do not find it"),
                _("add {folder} to PATH, in ~/.profile").format(folder=own.parent),
            )
        elif own.exists() and Path(found).resolve() != own.resolve():
            yield warning(
                "programs.other",
                _("{name} is {found}, this one belongs to {own}").format(
                    name=name, found=found, own=own
                ),
                _("two installations may be of different versions"),
                _("remove one of them, or put the right one first in PATH"),
            )
        else:
            yield ok("programs", f"{name}: {found}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
