"""CPU that `assistant ask` takes from its start until its request has arrived.

    python -m benchmarks.cli_startup [--runs 10] [--json FILE]

A bare ROUTER stands where the daemon would be; when the request is there, the command is killed
and the CPU time of the process is read from the kernel.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import zmq

LIMIT_S = 0.25


def one_run(router: "zmq.Socket[bytes]", endpoint: str) -> float:
    """CPU seconds, user and system, of one command."""
    process = subprocess.Popen(
        [sys.executable, "-m", "clients.cli", "--endpoint", endpoint, "ask", "hello"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while True:
        if not router.poll(30_000):
            raise SystemExit("no request came; does `assistant ask` work?")
        if b'"chat"' in router.recv_multipart()[-1]:
            break
    process.send_signal(signal.SIGKILL)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="ab-") as folder,
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as router,
    ):
        endpoint = f"ipc://{folder}/s"
        router.bind(endpoint)
        runs = [one_run(router, endpoint) for _ in range(args.runs + 1)][1:]  # the first warms up
    median = statistics.median(runs)
    print(f"assistant ask, start to request sent: {median:.3f} s of CPU (median of {args.runs},")
    print(f"{min(runs):.3f} to {max(runs):.3f}; the aim is at most {LIMIT_S} s)")
    if args.json:
        args.json.write_text(json.dumps({"median_s": median, "runs_s": runs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
