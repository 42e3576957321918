"""The socket that systemd hands over: what is taken, and what is refused."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from assistantd.activation import Inherited, inherited_socket
from assistantd.doors import Door

PROGRAM = """
import os, sys
from assistantd.activation import ActivationError, inherited_socket
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[1]))
try:
    found = inherited_socket()
except ActivationError as problem:
    print("refused", problem)
else:
    told = sorted(name for name in os.environ if "LISTEN" in name)
    print(found and found.path, os.get_inheritable(3), told)
"""


def hand_over(handed: socket.socket, count: str = "1", whose: int = 0) -> str:
    """What a process makes of a socket that is its descriptor 3."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(whose)],
        env={**os.environ, "LISTEN_FDS": count, "LISTEN_FDNAMES": "assistantd"},
        # as systemd does it, between fork and exec
        preexec_fn=lambda: os.dup2(handed.fileno(), 3),
        close_fds=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0
    return done.stdout.strip()


@pytest.fixture
def listening(tmp_path: Path) -> socket.socket:
    handed = socket.socket(socket.AF_UNIX)
    handed.bind(str(tmp_path / "s"))
    handed.listen()
    return handed


def test_a_listening_socket_is_taken_and_kept_from_children(
    listening: socket.socket, tmp_path: Path
) -> None:
    with listening:
        assert hand_over(listening) == f"{tmp_path / 's'} False []"


def test_what_is_meant_for_another_process_is_left(listening: socket.socket) -> None:
    with listening:
        assert hand_over(listening, whose=1).startswith("None ")
        assert hand_over(listening, count="0").startswith("None ")


def test_nothing_is_handed_over() -> None:
    assert inherited_socket({}) is None


def test_other_sockets_are_refused(listening: socket.socket, tmp_path: Path) -> None:
    with listening:
        assert "refused systemd has handed over 2 sockets" in hand_over(listening, count="2")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        assert "no listening UNIX stream socket" in hand_over(silent)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(tmp_path / "datagrams"))
        assert "no listening UNIX stream socket" in hand_over(datagrams)
    with socket.create_server(("127.0.0.1", 0)) as network:
        assert "no listening UNIX stream socket" in hand_over(network)


def test_a_door_serves_who_came_before_it_and_leaves_the_path(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    path.chmod(0o666)
    context = zmq.Context()
    client = context.socket(zmq.DEALER)
    client.connect(f"ipc://{path}")
    client.send(b"before there was a door")
    door = Door(f"ipc://{path}", Inherited(listening.detach(), path))
    door.bind()
    assert door.router.poll(10_000)
    arrival = door.receive()
    assert arrival is not None and arrival.frames[1] == b"before there was a door"
    assert path.stat().st_mode & 0o777 == 0o666  # that is systemd's to say
    door.close()
    assert path.is_socket()
    client.close(linger=0)
    context.term()
