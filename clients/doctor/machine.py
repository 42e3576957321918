"""Checks of the machine: processor, kernels, speed that is held back, clock, and the terminal."""

import locale
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime

from clients.doctor.context import Context, UnexaminedError
from clients.doctor.finding import Finding, ok, problem, skipped, warning
from clients.i18n import _

_HOT_C = 80.0
_EARLIEST = datetime(2025, 1, 1).timestamp()
"""Before this assistantd did not exist, so a clock that says so is wrong."""
_AHEAD_S = 86_400.0
_VCGENCMD_TIMEOUT_S = 10.0
_UNDER_VOLTAGE, _CAPPED, _THROTTLED, _HOT = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_SINCE_BOOT = 16
"""The same bits, so much further left, tell that it happened since the machine was started."""


def check_processor(context: Context) -> Iterator[Finding]:
    """Which instructions are used?"""
    found = context.examination
    if found.processor is None:
        if "ASSISTANTD_SIMD" in os.environ:
            yield problem(
                "processor.simd",
                found.problems["processor"].partition(": ")[2],
                _("the daemon does not start with it"),
                "unset ASSISTANTD_SIMD",
            )
        else:
            yield skipped("processor", found.problems["processor"])
        return
    processor = found.processor
    details = {"machine": processor.machine, "usable": processor.usable, "cores": processor.cores}
    if processor.target != processor.usable[0]:
        yield warning(
            "processor.choice",
            _("kernels use {target}, though this processor has {best}").format(
                target=processor.target, best=processor.usable[0]
            ),
            _("answers come slower than they could"),
            "unset ASSISTANTD_SIMD",
            **details,
        )
    elif processor.target == "portable":
        yield warning(
            "processor.portable",
            _("there are no special kernels for this processor ({machine})").format(
                machine=processor.machine
            ),
            _("answers come slowly"),
            _("use a machine with AVX2 or NEON; docs/kernels.md lists them"),
            **details,
        )
    else:
        text = _("{target} on {cores} cores")
        yield ok(
            "processor", text.format(target=processor.target, cores=processor.cores), **details
        )


def check_kernels(context: Context) -> Iterator[Finding]:
    """Are the kernels compiled?"""
    kernels = context.examination.kernels
    if kernels is None:
        yield skipped("kernels", context.examination.problems["kernels"])
        return
    details = {"folder": kernels.folder, "entries": kernels.entries, "old_bytes": kernels.old_bytes}
    damaged = sorted(name for name, state in kernels.entries.items() if state == "damaged")
    missing = sorted(name for name, state in kernels.entries.items() if state == "missing")
    if (damaged or missing) and not kernels.writable:
        yield problem(
            "kernels.folder",
            _("kernels cannot be compiled into {folder}").format(folder=kernels.folder),
            _("the daemon cannot load a model"),
            _("make it writable for the daemon's user, or set ASSISTANTD_KERNEL_CACHE"),
            **details,
        )
    elif damaged:
        yield warning(
            "kernels.damaged",
            _("compiled kernels are damaged: {names}").format(names=", ".join(damaged)),
            _("they are compiled anew at the next start, which takes a minute and 400 MB"),
            "assistantd --warm",
            **details,
        )
    elif missing:
        yield warning(
            "kernels.missing",
            _("the kernels are not compiled for this version and processor"),
            _("the first start takes a minute longer, and 400 MB"),
            "assistantd --warm",
            **details,
        )
    else:
        yield ok("kernels", _("compiled, in {folder}").format(folder=kernels.folder), **details)


def check_governor(context: Context) -> Iterator[Finding]:
    """Is the processor held back by its frequency settings?"""
    folders = sorted((context.root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    if not folders:
        yield skipped("governor", _("the system does not tell of processor frequencies"))
        return
    base = folders[0].relative_to(context.root)
    governor, driver = (
        context.read(f"{base}/scaling_governor"),
        context.read(f"{base}/scaling_driver"),
    )
    most, limit = context.read(f"{base}/cpuinfo_max_freq"), context.read(f"{base}/scaling_max_freq")
    details = {"governor": governor, "driver": driver, "max_khz": most, "limit_khz": limit}
    why = _("answers come slower than they could")
    # these two drivers choose frequencies themselves, and call that powersave
    if governor == "powersave" and driver not in ("intel_pstate", "amd-pstate-epp"):
        yield warning(
            "governor.powersave",
            _("the processor stays at its lowest frequency (governor powersave)"),
            why,
            "echo ondemand | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
            **details,
        )
    elif most.isdigit() and limit.isdigit() and int(limit) < int(most):
        yield warning(
            "governor.limit",
            _("the processor may run at {limit} MHz, though it can at {most}").format(
                limit=int(limit) // 1000, most=int(most) // 1000
            ),
            why,
            f"echo {most} | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_max_freq",
            **details,
        )
    else:
        yield ok("governor", governor or driver, **details)


def check_throttling(context: Context) -> Iterator[Finding]:
    """Is it too hot, or the power supply too weak?"""
    hottest = max(
        (
            int(text) / 1000
            for zone in (context.root / "sys/class/thermal").glob("thermal_zone*")
            if (text := context.read(f"{zone.relative_to(context.root)}/temp")).isdigit()
        ),
        default=None,
    )
    bits = _throttled(context)
    details = {"celsius": hottest, "throttled": None if bits is None else hex(bits)}
    supply = _("use the power supply that the board's maker names, and a short cable")
    slow = _("the processor slows down, and the card may be damaged when the power drops")
    cool = _("give it a heat sink or a fan")
    fine = True
    if bits is not None and bits & (_UNDER_VOLTAGE | _UNDER_VOLTAGE << _SINCE_BOOT):
        text = (
            _("the voltage is too low")
            if bits & _UNDER_VOLTAGE
            else _("the voltage was too low since the start of the machine")
        )
        yield warning("throttling.voltage", text, slow, supply, **details)
        fine = False
    hot_bits = _CAPPED | _THROTTLED | _HOT
    if hottest is not None and hottest >= _HOT_C:
        text = _("the processor has {n:.0f} °C").format(n=hottest)
        yield warning("throttling.hot", text, _("it slows down to protect itself"), cool, **details)
    elif bits is not None and bits & (hot_bits | hot_bits << _SINCE_BOOT) and fine:
        text = _("the processor is, or was, slowed down by heat")
        yield warning(
            "throttling.slowed", text, _("answers come slower than they could"), cool, **details
        )
    elif fine:
        if hottest is None and bits is None:
            yield skipped("throttling", _("the system tells no temperature"))
        else:
            text = _("{n:.0f} °C").format(n=hottest) if hottest is not None else _("not slowed")
            yield ok("throttling", text, **details)


def _throttled(context: Context) -> int | None:
    """What a Raspberry Pi's firmware says; None on other machines."""
    program = shutil.which("vcgencmd")
    if program is not None:
        try:
            done = subprocess.run(
                [program, "get_throttled"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_VCGENCMD_TIMEOUT_S,
            )
            return int(done.stdout.strip().removeprefix("throttled="), 16)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            pass  # not allowed to ask: the kernel may tell
    for monitor in (context.root / "sys/class/hwmon").glob("hwmon*"):
        at = monitor.relative_to(context.root)
        if context.read(f"{at}/name") == "rpi_volt":
            return _UNDER_VOLTAGE if context.read(f"{at}/in0_lcrit_alarm") == "1" else 0
    return None


def check_clock(context: Context) -> Iterator[Finding]:
    """Is the clock plausible?"""
    now = context.now()
    why = _("certificates, pairing codes and the times of conversations are wrong")
    mend = "sudo timedatectl set-ntp true"
    shown = datetime.fromtimestamp(now).isoformat(" ", "minutes")
    if now < _EARLIEST:
        text = _("the clock says {time}, which is long ago").format(time=shown)
        yield problem("clock.past", text, why, mend)
        return
    try:
        newest = max(
            (path.stat().st_mtime for path in context.data.glob("sessions.db*")), default=0.0
        )
    except (UnexaminedError, OSError):
        newest = 0.0
    if newest > now + _AHEAD_S:
        saved = datetime.fromtimestamp(newest).isoformat(" ", "minutes")
        text = _("the clock says {time}, but conversations were saved at {saved}")
        yield warning("clock.back", text.format(time=shown, saved=saved), why, mend)
        return
    yield ok("clock", shown)


def check_terminal(context: Context) -> Iterator[Finding]:
    """Can the terminal show what the assistant writes?"""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "").replace("_", "")
    wanted = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
    details = {"encoding": encoding, "locale": wanted, "term": os.environ.get("TERM", "")}
    mend = "export LANG=C.UTF-8"
    if wanted:
        before = locale.setlocale(locale.LC_CTYPE)
        try:
            locale.setlocale(locale.LC_CTYPE, wanted)
        except locale.Error:
            yield warning(
                "terminal.locale",
                _("the locale {name} is not installed").format(name=wanted),
                _("programs fall back to ASCII, and show ? for other letters"),
                f"sudo locale-gen {wanted}",
                **details,
            )
            return
        finally:
            locale.setlocale(locale.LC_CTYPE, before)
    if encoding != "utf8":
        text = _("the terminal's encoding is {name}").format(name=sys.stdout.encoding or "?")
        yield warning("terminal.encoding", text, _("letters it lacks become ?"), mend, **details)
        return
    yield ok("terminal", _("UTF-8, {locale}").format(locale=wanted or "C"), **details)
