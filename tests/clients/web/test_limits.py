"""clients.web.limits: buckets and whose they are."""

import pytest

from clients.web.limits import Buckets, household


def test_a_bucket_fills_up_again() -> None:
    now = [0.0]
    buckets = Buckets(per_minute=6, burst=2, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [0.0, 0.0, 10.0]
    assert buckets.take("b") == 0.0
    now[0] = 4.0
    assert buckets.take("a") == pytest.approx(6.0)
    now[0] = 10.5
    assert buckets.take("a") == 0.0
    now[0] = 10_000.0
    assert [buckets.take("a") for _ in range(3)][:2] == [0.0, 0.0]
    assert buckets.take("a") > 0


def test_a_permission_given_back() -> None:
    buckets = Buckets(per_minute=1, burst=1, clock=lambda: 0.0)
    assert buckets.take("a") == 0.0
    buckets.give_back("a")
    assert buckets.take("a") == 0.0
    buckets.give_back("unknown")


def test_keys_are_bounded() -> None:
    buckets = Buckets(per_minute=1, burst=1, clock=lambda: 0.0)
    for n in range(20_000):
        buckets.take(n)
    assert len(buckets._left) == 10_000


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.168.1.5", "192.168.1.5"),
        ("::ffff:192.168.1.5", "192.168.1.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("not an address", "not an address"),
    ],
)
def test_household(address: str, place: str) -> None:
    assert household(address) == place
