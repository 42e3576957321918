"""How often somebody may do something: token buckets, for so many keys at most."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from ipaddress import IPv6Address, ip_address
from time import monotonic

_MOST_KEYS = 10_000


class Buckets:
    """A bucket of permissions for each key, which fills up again over time.

    Args:
        per_minute: how many permissions come back in a minute.
        burst: how many there are at most.
        clock: seconds; replaced in tests.
    """

    def __init__(
        self, per_minute: float, burst: int, clock: Callable[[], float] = monotonic
    ) -> None:
        self._per_second, self._burst, self._clock = per_minute / 60, burst, clock
        self._left: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # key → left, when

    def take(self, key: Hashable) -> float:
        """Use one permission; 0.0 if there was one, else the seconds until there is."""
        now = self._clock()
        left, since = self._left.pop(key, (float(self._burst), now))
        left = min(self._burst, left + (now - since) * self._per_second)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_second
        self._left[key] = (left - 1 if left >= 1 else left, now)
        # whoever was not seen for longest has the fullest bucket: forgetting it gives least away
        while len(self._left) > _MOST_KEYS:
            self._left.popitem(last=False)
        return wait_s

    def give_back(self, key: Hashable) -> None:
        """Take back one use of a permission, which turned out to be harmless."""
        if key in self._left:
            left, since = self._left[key]
            self._left[key] = (min(self._burst, left + 1), since)


def household(address: str) -> str:
    """The address itself, or of IPv6 the network of 64 bits, of which one device has plenty."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)
