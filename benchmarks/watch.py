"""What a glance costs a watch: bytes on the wire, and memory.

    python -m benchmarks.watch [--json FILE] MODEL.gguf

A real daemon on the network, and `clients/watch.py` as a process of its own; a relay between them
counts the bytes of TCP, without those of TCP/IP's headers. Each answer has a connection of its
own, as on a watch. What coalescing would save is computed from the moments at which the pieces of
a streamed answer came: pieces that came within so many milliseconds are one message.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from assistantd.protocol import Delta, encode_reply
from clients import Client, servers
from clients.watch import HANDSHAKE_BYTES, wire_bytes
from tests.cable import Cable
from tests.e2e.network.elsewhere import listen, move
from tests.running import RunningDaemon, short_folder

QUESTIONS = (
    "What is the capital of France?",
    "How far is the moon?",
    "Why is the sky blue?",
    "Who wrote Faust?",
)
STORY = "Write about the sea, the wind and the light in five sentences."
STORY_TOKENS = 128
WINDOWS_MS = (0, 40, 100, 250, 1000)


@dataclass
class Cost:
    """Of one answer."""

    sent: int
    received: int
    memory_kb: int
    characters: int


def glance(cable: Cable, question: str, *options: str) -> Cost:
    """Ask with clients/watch.py."""
    sent, received = cable.sent, cable.received
    done = subprocess.run(
        [sys.executable, "-m", "clients.watch", "--stats", *options, question],
        capture_output=True,
        text=True,
        check=True,
    )
    memory_kb = int(done.stderr.split()[-4])
    return Cost(
        cable.sent - sent, cable.received - received, memory_kb, len(done.stdout.rstrip("\n"))
    )


def mean(costs: list[Cost], name: str) -> float:
    """Of one of the figures."""
    return sum(getattr(cost, name) for cost in costs) / len(costs)


def coalesced() -> dict[str, int]:
    """Bytes of the pieces of a longer answer, if those that came in such a time were one."""
    moments: list[tuple[float, str]] = []
    with Client("home", timeout=120) as client:
        answer = client.ask(STORY, temperature=0, max_tokens=STORY_TOKENS)
        for piece in answer:
            moments.append((1000 * perf_counter(), piece))
        request_id = answer._exchange.request_id
        text = answer.text
    found = {"pieces": len(moments), "text": len(text.encode())}
    for window_ms in WINDOWS_MS:
        messages, until = [], float("-inf")
        for at, piece in moments:
            if at < until:
                messages[-1] += piece
            else:
                messages.append(piece)
                until = at + window_ms
        found[f"{window_ms} ms"] = sum(
            wire_bytes(encode_reply(request_id, Delta(message))) for message in messages
        )
    return found


def memory_kb(*arguments: str) -> int:
    """Resident memory of a Python at the end of what it was told to do."""
    look = "print([l.split()[1] for l in open('/proc/self/status') if l.startswith('VmRSS')][0])"
    *options, code = arguments
    done = subprocess.run(
        [sys.executable, *options, "-c", f"{code}\n{look}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1])


def measure(model: Path) -> dict[str, dict[str, float]]:
    """Everything, by name."""
    running = RunningDaemon(short_folder(), model)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CONFIG_HOME"] = os.environ["XDG_STATE_HOME"] = folder
        try:
            port = listen(running)
            with Cable(port) as cable:
                move("home", cable.port)
                whole = [glance(cable, question) for question in QUESTIONS]
                streamed = [glance(cable, question, "--stream") for question in QUESTIONS]
                pieces = coalesced()
            servers.save([])
        finally:
            running.stop()
    bytes_found = {}
    for name, costs in (("whole", whole), ("streamed", streamed)):
        bytes_found[name] = {
            "sent": mean(costs, "sent") - HANDSHAKE_BYTES[0],
            "received": mean(costs, "received") - HANDSHAKE_BYTES[1],
            "characters": mean(costs, "characters"),
        }
    bytes_found["handshake"] = dict(zip(("sent", "received"), HANDSHAKE_BYTES, strict=True))
    memory = {
        "Python, nothing imported, -S": memory_kb("-S", "pass"),
        "Python, nothing imported": memory_kb("pass"),
        "import zmq": memory_kb("import zmq"),
        "from clients import Client": memory_kb("from clients import Client; Client"),
        "clients/watch.py after an answer": max(cost.memory_kb for cost in whole + streamed),
    }
    return {**bytes_found, "coalesced": pieces, "memory": memory}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    found = measure(args.model.resolve())
    print(f"{'bytes of a glance':34}{'sent':>8}{'received':>10}{'characters':>12}")
    for name in ("whole", "streamed", "handshake"):
        row = found[name]
        print(
            f"{name:34}{row['sent']:8.0f}{row['received']:10.0f}"
            + (f"{row['characters']:12.0f}" if "characters" in row else "")
        )
    pieces = found["coalesced"]
    print(f"\n{pieces['pieces']} pieces of an answer of {pieces['text']} bytes, as messages of")
    for window_ms in WINDOWS_MS:
        print(f"{f'  {window_ms} ms':34}{pieces[f'{window_ms} ms']:8} bytes")
    print("\nmemory, kB")
    for name, kilobytes in found["memory"].items():
        print(f"{'  ' + name:36}{kilobytes:8}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
