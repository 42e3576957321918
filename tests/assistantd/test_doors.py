"""What doors are made of."""

import subprocess
import sys
from pathlib import Path

import assistantd

NAMES = """
import zmq
from assistantd.doors import make_router
context = zmq.Context()
for number in range(2):
    router = make_router(context)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    dealer = context.socket(zmq.DEALER)
    dealer.connect(f"tcp://127.0.0.1:{port}")
    dealer.send(b"")
    assert router.poll(20_000)
    print(router.recv_multipart()[0].hex())
context.destroy(linger=0)
"""


def test_names_of_connections_cannot_be_guessed() -> None:
    """Who has that of the next connection can end the daemon: an assertion in ZeroMQ fails."""
    found = []
    for _process in range(2):
        done = subprocess.run([sys.executable, "-c", NAMES], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found += done.stdout.split()
    assert len(set(found)) == 4 and all(len(name) == 10 for name in found)


def test_every_door_is_made_so() -> None:
    folder = Path(assistantd.__file__).parent
    makers = [path.name for path in folder.rglob("*.py") if "socket(zmq.ROUTER" in path.read_text()]
    assert makers == ["doors.py"]
