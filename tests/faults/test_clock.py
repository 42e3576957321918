"""The wall clock jumps, as it does on a device without one when the network comes up.

libfaketime (Debian: libfaketime) shows the daemon another wall clock; the monotonic one goes on.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assistantd.protocol import Devices, Pair
from clients import Client
from tests.running import RunningDaemon

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
EVER = {"2": -100.0}
DAY_S = 86_400.0


class Clock:
    """Seconds by which the daemon's wall clock is wrong."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self._file = daemon.folder / "clock"
        self._daemon = daemon
        self.write(0)
        daemon.settings |= {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",  # seconds; without, each look at the clock costs a read
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def write(self, seconds: float) -> None:
        """It will be so in about a second."""
        self._file.write_text(f"{seconds:+.0f}\n")

    def set(self, seconds: float) -> None:
        """It is so when this returns."""
        self.write(seconds)
        with self._daemon.client() as client:
            while abs(self._shown(client) - time.time() - seconds) > DAY_S / 2:
                pass

    def _shown(self, client: Client) -> float:
        """What the daemon takes for the time."""
        device = client.request(Devices(op="add", name="clock")).device
        assert device is not None
        client.request(Devices(op="revoke", id=device.id))
        return device.created_at


@pytest.fixture
def clock(own_daemon: RunningDaemon) -> Iterator[Clock]:
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed")
    clock = Clock(own_daemon)
    own_daemon.start()
    yield clock
    assert own_daemon.stop() == 0
    assert "Traceback" not in own_daemon.log.read_text()


@pytest.mark.slow
def test_the_clock_jumps_ahead_and_back(own_daemon: RunningDaemon, clock: Clock) -> None:
    with own_daemon.client() as client:
        assert client.ask("one", session="early", max_tokens=2).wait().text
        answer = client.ask("Go on.", max_tokens=60, logit_bias=EVER, deadline_ms=170_000)
        next(iter(answer))
        clock.set(400 * DAY_S)
        answer.wait()
        assert answer.finish_reason == "length", "a deadline is not the wall clock's"
        assert client.ask("two", session="future", max_tokens=2).wait().text
        clock.set(-30 * DAY_S)
        for number, text in enumerate(("three", "four")):
            assert (
                client.ask(text, session="future" if number else "past", max_tokens=2).wait().text
            )
        # messages stand in the order in which they were said, and so do sessions
        said = [m.content for m in client.session("future").messages or [] if m.role == "user"]
        assert said == ["two", "four"]
        assert [s.id for s in client.sessions()] == ["future", "past", "early"]
        status = client.status()
        assert 0 <= status.uptime_s < DAY_S
        stored = [m.created_at for m in client.session("past").messages or []]
        assert all(at < time.time() - 20 * DAY_S for at in stored), "the clock was not wrong"


@pytest.mark.slow
def test_pairing_and_devices_do_not_mind_the_clock(own_daemon: RunningDaemon, clock: Clock) -> None:
    with own_daemon.client() as client:
        code = client.request(Pair(op="open")).pairing
        assert code is not None and code.code is not None
        clock.set(2 * DAY_S)
        # five minutes have not passed, whatever the clock says
        phone = client.request(Pair(op="claim", code=code.code, name="phone"))
        assert phone.device is not None
        added = client.request(Devices(op="add", name="program"))
        clock.set(-2 * DAY_S)
        assert client.request(Devices(op="authenticate", token=added.token)).device is not None
        second = client.request(Pair(op="open")).pairing
        assert second is not None and second.code is not None
        assert client.request(Pair(op="claim", code=second.code, name="tablet")).device is not None
        names = [device.name for device in client.request(Devices(op="list")).devices or []]
        assert sorted(names) == ["phone", "program", "tablet"]
