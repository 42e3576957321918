"""How much disk, memory and time the program takes: python -m benchmarks.footprint

    python -m benchmarks.footprint [--wheel FILE] [--extra voice]… [--runs 10] [--json FILE]

Installs the wheel into virtual environments of their own, the bare one and one for each extra,
with pip as it is configured; tells the size of each and of its largest packages; then how long the
bare one's commands take, first with nothing in the page cache and then again, and how much memory
a client has. Cold needs root (/proc/sys/vm/drop_caches), and is left out without.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXTRAS = ("network", "web", "voice", "piper", "convert")
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_LARGEST = 12
COMMANDS = {
    "assistant --help": ["assistant", "--help"],
    "assistant --version": ["assistant", "--version"],
    "assistant status (no daemon)": ["assistant", "status"],
    "assistantd --print-config": ["assistantd", "--print-config"],
    "import assistantd.daemon": ["python", "-c", "import assistantd.daemon"],
    "import engine.generate": ["python", "-c", "import engine.generate"],
}


def disk_bytes(path: Path) -> int:
    """What a file, or a folder with all in it, takes on disk."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.lstat().st_blocks * 512 for file in files if not file.is_symlink())


def install(wheel: Path, extra: str, folder: Path) -> Path:
    """A fresh environment with the wheel in it. Returns its site-packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(folder / "bin/python")),
            *("install", "--quiet", "--no-compile", f"{wheel}[{extra}]" if extra else str(wheel)),
        ],
        check=True,
    )
    (site,) = folder.glob("lib/python3.*/site-packages")
    return site


def sizes(site: Path) -> dict[str, int]:
    """Bytes by package, with the libraries that a package brings in a folder of its own."""
    found: dict[str, int] = {}
    for path in site.iterdir():
        name = path.name.removesuffix(".libs").split("-")[0].removesuffix(".py")
        found[name] = found.get(name, 0) + disk_bytes(path)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def drop_caches() -> None:
    """Forget all that was read from disk."""
    os.sync()
    DROP_CACHES.write_text("3\n")


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, int]:
    """Seconds that passed, seconds of CPU, and the most memory, of one run."""
    before = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _pid, _status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - before
    process.returncode = 0
    return took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def measure(folder: Path, n_runs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All commands of an environment."""
    can_drop = os.geteuid() == 0 and os.access(DROP_CACHES, os.W_OK)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="af-") as home:
        # nobody listens there, and nothing is configured
        environment = {"HOME": home, "XDG_RUNTIME_DIR": home, "PATH": "/usr/bin:/bin"}
        environment |= {"LANG": "C.UTF-8", "ASSISTANTD_AUTOSTART": "0"}
        for name, (program, *arguments) in COMMANDS.items():
            command = [str(folder / "bin" / program), *arguments]
            timed(command, environment)  # compiles to bytecode
            cold = []
            for _ in range(3 if can_drop else 0):
                drop_caches()
                cold.append(timed(command, environment)[0])
            warm = [timed(command, environment) for _ in range(n_runs)]
            found[name] = {
                "cold_s": statistics.median(cold) if cold else None,
                "warm_s": statistics.median(run[0] for run in warm),
                "cpu_s": statistics.median(run[1] for run in warm),
                "peak_bytes": max(run[2] for run in warm),
            }
            row = found[name]
            text = f"{row['cold_s']:6.2f} s cold" if cold else "     -      "
            say(
                f"{name:32} {text} {row['warm_s']:6.3f} s warm {row['cpu_s']:6.3f} s of CPU "
                f"{row['peak_bytes'] / 1e6:5.0f} MB"
            )
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--wheel", type=Path, help="by default the one in dist/ (`make dist`)")
    parser.add_argument("--extra", action="append", choices=EXTRAS, help="by default all")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    wheels = sorted(Path("dist").glob("assistantd-*.whl"), key=lambda file: file.stat().st_mtime)
    if args.wheel is None and not wheels:
        raise SystemExit("there is no wheel in dist/: run `make dist`, or give one with --wheel")
    wheel: Path = (args.wheel or wheels[-1]).resolve()
    print(f"{wheel.name}: {wheel.stat().st_size / 1e3:.0f} kB")
    result: dict[str, Any] = {"wheel_bytes": wheel.stat().st_size, "installed": {}}
    with tempfile.TemporaryDirectory(prefix="assistantd-footprint-") as root:
        bare: dict[str, int] = {}
        for extra in ("", *(args.extra or EXTRAS)):
            folder = Path(root) / (extra or "bare")
            site = install(wheel, extra, folder)
            found = sizes(site)
            total = sum(found.values())
            result["installed"][extra] = {"bytes": total, "packages": found}
            more = {name: size - bare.get(name, 0) for name, size in found.items()}
            if extra:
                print(f"[{extra}]: {sum(more.values()) / 1e6:+.0f} MB, of that")
            else:
                bare = found
                print(f"installed: {total / 1e6:.0f} MB, of that")
            for name, size in sorted(more.items(), key=lambda item: -item[1])[:_LARGEST]:
                if size >= 1e5:
                    print(f"  {name:24} {size / 1e6:6.1f} MB")
        result["commands"] = measure(Path(root) / "bare", args.runs, print)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
