"""The token bucket."""

from hypothesis import given
from hypothesis import strategies as st

from assistantd.network.bucket import Bucket


@given(
    st.integers(1, 1000),
    st.lists(st.floats(0, 30), max_size=300),
)
def test_it_gives_no_more_than_it_should(per_minute: int, pauses: list[float]) -> None:
    now, taken = 0.0, 0
    bucket = Bucket(now)
    for pause in pauses:
        now += pause
        wait = bucket.take(per_minute / 60, per_minute, now)
        if wait > 0:
            assert bucket.take(per_minute / 60, per_minute, now) > 0
            assert wait <= 60 / per_minute + 1e-6
        else:
            taken += 1
        assert taken <= per_minute + now * per_minute / 60 + 1e-3


def test_who_waits_as_long_as_he_is_told_gets_one() -> None:
    bucket = Bucket(0.0)
    assert [bucket.take(0.125, 2, 0.0) for _ in range(3)] == [0.0, 0.0, 8.0]
    assert bucket.take(0.125, 2, 7.0) == 1.0
    assert bucket.take(0.125, 2, 8.0) == 0.0
    # another rate from now on
    assert bucket.take(1.0, 100, 8.0) == 0.0
