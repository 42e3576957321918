"""What commands print: JSON lines, tables, sizes and times; plain text in a pipe."""

import os
import sys
from collections.abc import Sequence
from time import time

from assistantd.localisation.width import columns, folded, padded
from assistantd.protocol import to_json
from clients.i18n import _

_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


def clean(text: str) -> str:
    """`text` without control characters: what a model or a file says must not steer a terminal."""
    return text.translate(_CONTROLS)


def write(text: str) -> None:
    """Print text of the model at once, as it is into a pipe, and cleaned on a terminal."""
    sys.stdout.write(clean(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def print_json(value: object) -> None:
    """One line of JSON."""
    print(to_json(value).decode())


def note(message: str) -> None:
    """A remark on stderr, in one line."""
    print(f"assistant: {clean(message)}", file=sys.stderr, flush=True)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns under headers on a terminal; in a pipe lines of tab-separated fields, no headers."""
    if not sys.stdout.isatty():
        for row in rows:
            # a tab or a line break inside of a field would end it
            print("\t".join(" ".join(clean(cell).split()) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        grid.add_column(header, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(clean(cell)) for cell in row))
    Console().print(grid)


def pairs(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values, aligned; on a terminal the names coloured and long values folded."""
    width = max(columns(name) for name, value in rows)
    terminal = sys.stdout.isatty()
    dumb = os.environ.get("TERM") == "dumb"
    colour = terminal and not dumb and not os.environ.get("NO_COLOR")
    for name, value in rows:
        label = padded(name, width)
        lines = _folded(clean(value), width + 2) if terminal else [clean(value)]
        print(f"\x1b[1m{label}\x1b[0m  {lines[0]}" if colour else f"{label}  {lines[0]}")
        for line in lines[1:]:
            print(" " * (width + 2) + line)


def _folded(text: str, indent: int) -> list[str]:
    """Lines that fit beside `indent` columns; a path or a checksum stays in one piece."""
    import shutil

    return folded(text, max(10, shutil.get_terminal_size().columns - indent))


def human_bytes(n_bytes: float) -> str:
    """Bytes as people write them, in powers of ten: 98 MB."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while n_bytes >= 999.5 and len(units) > 1:
        n_bytes /= 1000
        del units[0]
    unit = units[0]
    if unit == "bytes":
        return _("{n} bytes").format(n=f"{n_bytes:.0f}")
    return f"{n_bytes:.0f} {unit}" if n_bytes >= 10 else f"{n_bytes:.1f} {unit}"


def human_count(n: int) -> str:
    """A number of parameters: 135M, 1.1B."""
    for divisor, unit in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")):
        if n >= divisor:
            value = n / divisor
            return f"{value:.0f}{unit}" if value >= 10 else f"{value:.1f}{unit}"
    return str(n)


def human_span(seconds: float) -> str:
    """A length of time in its two largest units: 2 h 5 min."""
    return " ".join(_in_units(seconds)[:2])


def _in_units(seconds: float) -> list[str]:
    units = ((86_400, _("{n} d")), (3_600, _("{n} h")), (60, _("{n} min")), (1, _("{n} s")))
    whole = int(seconds)
    found = []
    for size, unit in units:
        if whole >= size:
            found.append(unit.format(n=whole // size))
            whole %= size
    return found or [_("{n} s").format(n=0)]


def ago(unix_time: float) -> str:
    """How long ago a moment was, in its largest unit."""
    span = max(0.0, time() - unix_time)
    if span < 60:
        return _("just now")
    return _("{span} ago").format(span=_in_units(span)[0])
