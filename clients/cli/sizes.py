"""Memory sizes on the command line: what the daemon's configuration accepts, and `none`.

The daemon has a reader of its own (assistantd/sizes.py); clients import nothing of the daemon but
its protocol, so this is a second one, and a test holds the two together.
"""

import re

import click

from clients.i18n import _

_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
_MAX_BYTES = 1 << 60


def size(text: str) -> int:
    """Bytes of a size as it is typed, 0 for `none`; K, M, G and T are powers of 1024.

    Raises:
        click.BadParameter: it is not a size.
    """
    if text.strip().lower() == "none":
        return 0
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(
            _("{text!r} is not a size; write for example 400M, 1.5G or none").format(text=text)
        )
    number, unit = match.groups()
    scale = 1024 ** _UNITS[unit.upper()]
    # whole numbers are kept exact, which a float would not
    n_bytes = int(float(number) * scale) if "." in number else int(number) * scale
    if n_bytes > _MAX_BYTES:
        raise click.BadParameter(_("{text!r} is more than any machine has").format(text=text))
    return n_bytes


def memory_size(n_bytes: float) -> str:
    """Bytes of memory as budgets are written, in powers of 1024: 400M, 12.5G."""
    if n_bytes < 1024:
        return _("{n} bytes").format(n=f"{n_bytes:.0f}")
    mebibytes = n_bytes / (1 << 20)
    if mebibytes < 0.95:
        return f"{n_bytes / 1024:.0f}K"
    if mebibytes >= 10 * 1024:
        return f"{mebibytes / 1024:.1f}G"
    return f"{mebibytes:.0f}M" if mebibytes >= 9.95 else f"{mebibytes:.1f}M"


def enough(n_bytes: int) -> str:
    """A size to type that is no less than `n_bytes`."""
    return f"{-(-n_bytes // (1 << 20))}M"
