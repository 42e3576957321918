"""Old messages go, and a clock that leaps takes nothing with it."""

import queue
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from assistantd import retention
from assistantd.config import Config, LimitsConfig, PrivacyConfig
from assistantd.forgetting import Choice
from assistantd.retention import DAY_S, FILE_NAME, ClockWatch
from assistantd.sessions import SessionStore
from tests.assistantd.stepped import Running
from tests.assistantd.test_forgetting import say

NOW = 1_795_000_000.0
HOUR = 3600.0
YEAR = 365 * DAY_S


class Clocks:
    """The clock, which may leap, and time, which does not."""

    def __init__(self, folder: Path, wall: float = NOW) -> None:
        self.path, self.wall, self.even = folder / FILE_NAME, wall, 50.0
        self.newest: float | None = wall
        self.start()

    def start(self) -> None:
        """A new run of the daemon; the even clock begins anew, as after a boot."""
        self.even = 50.0
        self.watch = ClockWatch(self.path, lambda: self.wall, lambda: self.even)

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.even += seconds

    @property
    def waits(self) -> float:
        """Seconds until it is believed."""
        wall, until = self.watch.look(self.newest)
        assert wall == self.wall
        return 0.0 if until is None else until - wall


@pytest.fixture
def clocks(tmp_path: Path) -> Clocks:
    return Clocks(tmp_path)


def test_a_clock_that_goes_evenly(clocks: Clocks) -> None:
    for _hour in range(48):
        assert clocks.waits == 0
        clocks.passes(HOUR)
        clocks.wall += 20  # put right a little
    clocks.start()
    clocks.wall += DAY_S / 2  # it was off
    assert clocks.waits == 0


def test_years_ahead(clocks: Clocks) -> None:
    assert clocks.waits == 0
    clocks.wall += 12 * YEAR
    assert clocks.waits == 7 * DAY_S
    for _hour in range(20):
        clocks.passes(HOUR)
        assert clocks.waits > 0
    clocks.wall -= 12 * YEAR  # and right again
    assert clocks.waits == 7 * DAY_S
    # a restart does not make it believed
    clocks.start()
    clocks.passes(HOUR)
    assert clocks.waits > 6 * DAY_S
    for _day in range(7):
        clocks.passes(DAY_S)
        clocks.start()
        last = clocks.waits
    assert last == 0


def test_a_small_computer_without_a_battery(clocks: Clocks) -> None:
    """It starts with the time at which it was stopped, and is told the right one a little later."""
    assert clocks.waits == 0
    clocks.start()
    assert clocks.waits == 0
    clocks.passes(60)
    clocks.wall += 8 * HOUR
    assert clocks.waits == 2 * HOUR
    clocks.passes(2 * HOUR)
    assert clocks.waits == 0
    # or with that of 1970, and is never told
    clocks.start()
    clocks.wall = 1000.0
    assert clocks.waits == 7 * DAY_S


def test_it_was_off_for_long(clocks: Clocks) -> None:
    assert clocks.waits == 0
    clocks.start()
    clocks.wall += 14 * DAY_S
    assert clocks.waits == 3.5 * DAY_S
    for _day in range(3):
        clocks.passes(DAY_S)
        assert clocks.waits > 0
    clocks.passes(DAY_S)
    assert clocks.waits == 0


def test_the_first_time_it_is_compared_with_the_messages(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path)
    clocks.newest = NOW - YEAR
    assert clocks.waits == 7 * DAY_S
    clocks.path.write_bytes(b"{")  # damaged: as if there were none
    clocks.newest = None
    clocks.start()
    assert clocks.waits == 0


@example([("leaps", 2 * DAY_S + 1), ("leaps", 301.0), ("passes", 76.0)])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["passes", "leaps", "restarts"]), st.floats(-30 * YEAR, 30 * YEAR)
        ),
        max_size=15,
    )
)
def test_nothing_new_is_ever_removed_after_a_leap(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, float]]
) -> None:
    """Whoever believes it has seen it go on for a quarter of each leap, or for a week."""
    clocks = Clocks(tmp_path_factory.mktemp("clock"))
    clocks.waits  # noqa: B018
    needed = 0.0
    for what, seconds in events:
        if what == "passes":
            clocks.passes(min(abs(seconds), HOUR))
            needed -= min(abs(seconds), HOUR)
        elif what == "leaps":
            clocks.wall += seconds
            if abs(seconds) > 2 * DAY_S:
                needed = min(7 * DAY_S, abs(seconds) / 4) - 301
        else:
            clocks.start()
        if needed > 0:
            assert clocks.waits > 0


# --- in the daemon ---------------------------------------------------------------------------


def prepare(folder: Path, now: float) -> None:
    """Messages of today and of long ago."""
    (folder / "d").mkdir()
    store = SessionStore(folder / "d" / "sessions.db")
    say(store, "both", "SECRETWORD", "long ago", now - 40 * DAY_S)
    say(store, "both", "today?", "yes", now - 10)
    say(store, "old", "SECRETWORD, too", "long ago", now - 31 * DAY_S)
    say(store, "new", "just now", "yes", now - 5)
    store.close()


def running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    daemon = Running(folder, LimitsConfig())
    settings: Config = daemon.daemon._config
    monkeypatch.setattr(daemon.daemon, "_config", with_days(settings, 30))
    return daemon


def with_days(config: Config, days: int) -> Config:
    from msgspec.structs import replace

    return replace(config, privacy=PrivacyConfig(days))


def test_old_messages_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path, time.time())
    with running(tmp_path, monkeypatch) as daemon, daemon.client() as client:
        info = client.status().retention
        while info is None or info.removed_at is None:
            info = client.status().retention
        assert (info.days, info.waits_until) == (30, None)
        assert [session.id for session in client.sessions()] == ["new", "both"]
        shown = client.session("both")
        assert [m.content for m in shown.messages or ()] == ["today?", "yes"]
        for file in (tmp_path / "d").glob("sessions.db*"):
            assert b"SECRETWORD" not in file.read_bytes()


def test_not_with_a_clock_that_has_leapt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # of a computer whose clock was right a year ago, by what was said then
    prepare(tmp_path, time.time() - YEAR)
    with running(tmp_path, monkeypatch) as daemon, daemon.client() as client:
        info = client.status().retention
        while info is None or info.waits_until is None:
            info = client.status().retention
        assert info.removed_at is None
        assert info.waits_until - time.time() == pytest.approx(7 * DAY_S, abs=HOUR)
        assert len(client.sessions()) == 3


def test_it_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Daily while the daemon runs: what was not old at the start is removed later."""
    prepare(tmp_path, time.time())
    monkeypatch.setattr(retention, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(retention, "DAY_S", 0.01)  # then the days are short, too
    with running(tmp_path, monkeypatch) as daemon, daemon.client() as client:
        daemon.engine.free_running = True
        for _round in range(2):
            client.ask("x", session="fresh", max_tokens=1).wait()
            while client.sessions():
                client.ping()


def test_none_unless_it_is_set(tmp_path: Path) -> None:
    prepare(tmp_path, time.time())
    with Running(tmp_path, LimitsConfig()) as daemon, daemon.client() as client:
        assert client.status().retention is None
        assert len(client.sessions()) == 3
    assert not (tmp_path / "d" / FILE_NAME).exists()


def test_another_age_holds_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after a day, and though nobody asks for anything."""
    prepare(tmp_path, time.time())
    removed: queue.Queue[Choice] = queue.Queue()
    with Running(tmp_path, LimitsConfig()) as daemon:
        inner = daemon.daemon
        monkeypatch.setattr(inner._forgetter, "forget", lambda choice, reply: removed.put(choice))
        for days in (30, 20):
            inner._adopt(with_days(inner._config, days))
            before = removed.get(timeout=10).before
            assert before is not None and abs(time.time() - days * DAY_S - before) < 60
