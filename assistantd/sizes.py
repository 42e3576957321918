"""Sizes as people write them: "400M", "1.5G", "512MiB", or plain bytes."""

import re

from assistantd.i18n import _

_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
MAX_BYTES = 1 << 60


def parse_size(text: str | int) -> int:
    """Bytes that a size means; K, M, G and T are powers of 1024, with or without B or iB.

    Raises:
        ValueError: it is not a size; the message says how one is written.
    """
    if isinstance(text, int):
        n_bytes = text
    else:
        match = _SIZE.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                _("{text!r} is not a size; write for example 400M, 1.5G or 512MiB").format(
                    text=text
                )
            )
        number, unit = match.groups()
        scale = 1024 ** _UNITS[unit.upper()]
        # whole numbers are kept exact, which a float would not
        n_bytes = int(float(number) * scale) if "." in number else int(number) * scale
    if not 0 <= n_bytes <= MAX_BYTES:
        raise ValueError(
            _("{text!r} is not between 0 and {limit} bytes").format(text=text, limit=MAX_BYTES)
        )
    return n_bytes
