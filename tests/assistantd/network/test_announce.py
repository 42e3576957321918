"""Being found by mDNS, with real sockets; and machines without a network."""

import ipaddress
import logging
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing

import pytest

from assistantd.network import announce, hosts
from assistantd.network.announce import Announcement, Announcer
from clients.discovery import discover
from tests.clients.scripted_daemon import WAIT_S


def test_addresses_are_such_that_others_may_use() -> None:
    for address in hosts.addresses(hosts.hosts()):
        assert not ipaddress.ip_address(address).is_loopback
    assert hosts.addresses(["box.local", "192.0.2.7", "fd00::1"]) == ["192.0.2.7", "fd00::1"]


def announced(port: int, find: Callable[[], list[str]] = lambda: ["127.0.0.1"]) -> Announcement:
    return Announcement(port, "one two three four", "9.9", find)


def test_it_is_found_and_then_no_more() -> None:
    with closing(Announcer()) as announcer:
        announcer.announce(announced(45771))
        (found,) = [one for one in discover(WAIT_S) if one.port == 45771]
        announcer.announce(announced(45773))
        announcer.announce(announced(45775))
    assert (found.host, found.words, found.version) == ("127.0.0.1", "one two three four", "9.9")
    assert found.name.startswith(hosts.host_name())
    assert [one for one in discover(0.3) if one.port in (45771, 45773, 45775)] == []


def test_it_follows_the_addresses() -> None:
    """At boot the network comes late; later it may be another one."""
    looks = iter([[], [], ["127.0.0.1"], ["127.0.0.1"]])
    looked = threading.Event()

    def find() -> list[str]:
        found = next(looks, None)
        if found is None:
            looked.set()
            return ["127.0.0.2"]
        return found

    with closing(Announcer(look_every_s=0.01)) as announcer:
        announcer.announce(announced(45777, find))
        assert looked.wait(WAIT_S)
        found = [one.host for one in discover(WAIT_S) if one.port == 45777]
    assert found == ["127.0.0.2"]


def test_a_failing_network_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    looks = threading.Semaphore(0)

    def find() -> list[str]:
        looks.release()
        return []

    with closing(Announcer(look_every_s=0.001)) as announcer:
        announcer.announce(announced(45779, find))
        for _ in range(5):
            assert looks.acquire(timeout=WAIT_S)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.message for record in warnings] == ["cannot announce on the network yet"]


def test_a_machine_without_any_interface() -> None:
    code = (
        "from assistantd.network.hosts import addresses, hosts\n"
        "from assistantd.network.announce import Announcement, Announcer\n"
        "assert addresses(hosts()) == [], hosts()\n"
        "announcer = Announcer()\n"
        "announcer.announce(Announcement(45781, 'w', '1', lambda: ['192.0.2.9']))\n"
        "announcer.close(); print('fine')\n"
    )
    alone = ["unshare", "--map-root-user", "--net"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        pytest.skip(f"this machine does not let tests have a network of their own: {problem}")
    done = subprocess.run([*alone, sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "fine\n" and "Traceback" not in done.stderr, done.stderr


def test_a_missing_package_is_named_and_may_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    told: queue.Queue[str] = queue.Queue()

    def warning(message: str, extra: dict[str, dict[str, object]]) -> None:
        told.put(str(extra))

    monkeypatch.setattr(announce.log, "warning", warning)
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    with closing(Announcer(look_every_s=0.05)) as announcer:
        announcer.announce(announced(45783))
        assert "a package is missing: zeroconf" in told.get(timeout=WAIT_S)
        thread = announcer._thread
        assert thread is not None and thread.is_alive()  # it looks again
