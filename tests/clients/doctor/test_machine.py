"""Processor, kernels, heat, clock, terminal, memory. What only a Raspberry Pi has stands in files
of the kernel's form below another root; all else is broken for real."""

import os
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from assistantd.protocol import Done
from assistantd.protocol_examine import Examination
from clients.doctor.context import Context
from engine import native
from tests.clients.doctor.parts import REPOSITORY, Place, fine, one, program
from tests.clients.scripted_daemon import ScriptedDaemon, fail, status_info
from tests.memory.limits import KernelLimit, NoLimitsError


def test_processor(place: Place) -> None:
    fine(place.find("processor"))
    context = Context()
    place.set(ASSISTANTD_SIMD="mmx")
    finding = one(place.find("processor", context), "processor.simd", "problem")
    assert "mmx" in finding.found and finding.mend == "unset ASSISTANTD_SIMD"
    fine(place.find("program", context))  # it is the setting that is wrong, not the program
    place.set(ASSISTANTD_SIMD="portable")
    finding = one(place.find("processor", Context()), "processor.choice", "warning")
    assert "portable" in finding.found


def test_a_processor_without_kernels_of_its_own(place: Place) -> None:
    context = place.context()
    processor = context.examination.processor
    assert processor is not None
    processor.target, processor.usable = "portable", ["portable"]
    one(place.find("processor", context), "processor.portable", "warning")


def test_kernels(place: Place) -> None:
    native.warm()
    compiled = native.cache_dir()
    fine(place.find("kernels"))
    cache = place.folder / "cache"
    place.set(ASSISTANTD_KERNEL_CACHE=str(cache))
    native.cache_dir.cache_clear()
    try:
        finding = one(place.find("kernels"), "kernels.missing", "warning")
        assert finding.mend == "assistantd --warm"
        assert not cache.exists()  # nothing was compiled
        folder = native.cache_dir()
        folder.mkdir(parents=True)
        for name in native.ENTRIES:
            code = (compiled / f"{name}.kernel").read_bytes()
            (folder / f"{name}.kernel").write_bytes(code)
        fine(place.find("kernels"))
        with (folder / "clock.kernel").open("r+b") as file:
            file.truncate(100)
        assert "clock" in one(place.find("kernels"), "kernels.damaged", "warning").found
    finally:
        native.cache_dir.cache_clear()


def test_kernels_that_cannot_be_compiled(place: Place) -> None:
    cache = place.folder / "cache"
    cache.mkdir(mode=0o555)
    place.folder.chmod(0o755)
    place.set(ASSISTANTD_KERNEL_CACHE=str(cache))
    native.cache_dir.cache_clear()
    try:
        finding = one(place.find_as_stranger("kernels"), "kernels.folder", "problem")
    finally:
        native.cache_dir.cache_clear()
    assert "ASSISTANTD_KERNEL_CACHE" in finding.mend


def test_frequencies(place: Place) -> None:
    context = place.context(root=place.root)
    assert place.find("governor", context)[0].severity == "skipped"
    cpu = "sys/devices/system/cpu/cpu0/cpufreq"
    place.write(f"{cpu}/scaling_governor", "ondemand\n")
    place.write(f"{cpu}/scaling_driver", "cpufreq-dt\n")
    place.write(f"{cpu}/cpuinfo_max_freq", "2400000\n")
    place.write(f"{cpu}/scaling_max_freq", "2400000\n")
    fine(place.find("governor", context))
    place.write(f"{cpu}/scaling_max_freq", "1500000\n")
    finding = one(place.find("governor", context), "governor.limit", "warning")
    assert "1500 MHz" in finding.found and "echo 2400000" in finding.mend
    place.write(f"{cpu}/scaling_governor", "powersave\n")
    finding = one(place.find("governor", context), "governor.powersave", "warning")
    assert "scaling_governor" in finding.mend
    place.write(f"{cpu}/scaling_max_freq", "2400000\n")
    place.write(f"{cpu}/scaling_driver", "intel_pstate\n")
    fine(place.find("governor", context))


def test_heat_and_power(place: Place) -> None:
    place.set(PATH=f"{place.folder}/bin:/usr/bin:/bin")
    context = place.context(root=place.root)
    assert place.find("throttling", context)[0].severity == "skipped"
    place.write("sys/class/thermal/thermal_zone0/temp", "48312\n")
    fine(place.find("throttling", context))
    place.write("sys/class/thermal/thermal_zone0/temp", "84000\n")
    assert "84" in one(place.find("throttling", context), "throttling.hot", "warning").found
    place.write("sys/class/thermal/thermal_zone0/temp", "48312\n")
    for bits, id in (
        ("0x0", None),
        ("0x1", "throttling.voltage"),
        ("0x50005", "throttling.voltage"),
        ("0x10000", "throttling.voltage"),
        ("0x4", "throttling.slowed"),
        ("0x80000", "throttling.slowed"),
    ):
        program(
            place.folder / "bin", "vcgencmd", f'test "$1" = get_throttled && echo throttled={bits}'
        )
        found = place.find("throttling", context)
        if id is None:
            fine(found)
        else:
            one(found, id, "warning")
    # without the program, as the kernel tells it
    (place.folder / "bin/vcgencmd").unlink()
    place.write("sys/class/hwmon/hwmon1/name", "rpi_volt\n")
    place.write("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n")
    one(place.find("throttling", context), "throttling.voltage", "warning")
    place.write("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "0\n")
    fine(place.find("throttling", context))


def test_clock(place: Place) -> None:
    fine(place.find("clock"))
    past = datetime(1970, 1, 1, 12).timestamp()
    finding = one(place.find("clock", now=lambda: past), "clock.past", "problem")
    assert "timedatectl" in finding.mend
    place.data.mkdir()
    database = place.data / "sessions.db"
    database.touch()
    later = datetime.now().timestamp() + 30 * 86_400
    os.utime(database, (later, later))
    one(place.find("clock"), "clock.back", "warning")


def test_terminal(place: Place) -> None:
    plain = {"LC_ALL": "", "LC_CTYPE": "", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for variables, id in (
        ({"LANG": "C.UTF-8"}, None),
        ({"LANG": "C", "PYTHONIOENCODING": "ascii"}, "terminal.encoding"),
        ({"LANG": "xx_XX.UTF-8"}, "terminal.locale"),
    ):
        done = place.command("terminal", "--json", **{**plain, **variables})
        (finding,) = msgspec.json.decode(done.stdout)["findings"]
        assert finding["id"] == (id or "terminal"), finding
        assert finding["severity"] == ("warning" if id else "ok")
        assert bool(finding["mend"]) == bool(id)


# --- memory ------------------------------------------------------------------------------------


def test_budgets(place: Place, tiny: Path) -> None:
    fine(place.find("memory"))
    place.set(ASSISTANTD_MEMORY_BUDGET="20M")
    finding = one(place.find("memory"), "memory.budget", "problem")
    assert 'memory_budget = "' in finding.mend
    size = finding.mend.partition('"')[2].partition('"')[0]
    place.set(ASSISTANTD_MEMORY_BUDGET=size)
    fine(place.find("memory"))  # what was advised does


def test_a_machine_that_is_too_small_or_slow(place: Place, tiny: Path) -> None:
    """Its memory and its disk stand in what the daemon's program measured."""

    def changed(**plan: object) -> Context:
        context = place.context()
        found = context.examination.plan
        assert found is not None and found.plan is not None
        for name, value in plan.items():
            setattr(found if hasattr(found, name) else found.plan, name, value)
        return context

    one(place.find("memory", changed(available=1 << 20)), "memory.available", "warning")
    slow = changed(streamed_bytes=90 << 20, tokens_per_second=0.2)
    assert "0.2 tokens/s" in one(place.find("memory", slow), "memory.slow", "warning").found
    found = place.find("disk-speed", changed(disk=3e6))
    assert "3.0 MB" in one(found, "disk-speed.slow", "warning").found
    fine(place.find("disk-speed", changed()))


def test_a_cgroup_that_is_smaller_than_the_budget(place: Place) -> None:
    try:
        with KernelLimit(200 << 20) as limit:
            for budget, id in (("400M", "cgroup.limit"), ("150M", None)):
                context = place.context()
                context.__dict__["_examined"] = _examined_within(limit.within, budget)
                found = place.find("cgroup", context)
                if id is None:
                    fine(found)
                else:
                    assert "MemoryMax" in one(found, id, "problem").mend
    except NoLimitsError as reason:
        pytest.skip(str(reason))


def _examined_within(within: list[str], budget: str) -> Examination:
    import subprocess
    import sys

    done = subprocess.run(
        [*within, sys.executable, "-m", "assistantd", "--examine", "--memory-budget", budget],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Examination)


def test_swap(place: Place) -> None:
    context = place.context(root=place.root)
    fine(place.find("swap", context))
    head = "Filename\tType\tSize\tUsed\tPriority\n"
    place.write("proc/swaps", head + "/dev/zram0 partition 1048572 0 100\n")
    fine(place.find("swap", context))
    place.write("proc/swaps", head + "/dev/mmcblk0p3 partition 1048572 0 -2\n")
    assert "zram" in one(place.find("swap", context), "swap.card", "warning").mend


def test_a_daemon_that_is_swapped_out(place: Place) -> None:
    with ScriptedDaemon(place.folder) as daemon:
        daemon.on("network", fail("unauthorized", "no"))
        daemon.on("status", lambda r, send: send(Done(status=status_info(pid=77))))
        context = place.context(root=place.root, endpoint=daemon.endpoint)
        place.write("proc/77/status", "Name:\tpython\nVmSwap:\t  204800 kB\n")
        one(place.find("swap", context), "swap.used", "warning")
        place.write("proc/77/status", "Name:\tpython\nVmSwap:\t  100 kB\n")
        fine(place.find("swap", context))
