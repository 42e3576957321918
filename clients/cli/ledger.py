"""What memory is used for, for people: the rows of a plan, and the bar with a legend.

A bar is lines of (text, style) pairs; only what draws them loads rich.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assistantd.protocol import PlanInfo, StatusInfo
from clients.cli.sizes import enough, memory_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Line = list[tuple[str, str]]
"""Pieces of text and rich's name of their style."""


@dataclass(frozen=True)
class Share:
    """A part of the memory that has one owner.

    Attributes:
        text: for the legend; empty for a part that the share before it speaks for.
        letter: stands for it where there is no colour.
    """

    text: str
    n_bytes: int
    letter: str
    block: str
    style: str


_OWNERS = {
    "libraries": ("libraries", "L", "blue"),
    "sessions": ("sessions", "I", "bright_blue"),
    "weights": ("weights", "W", "green"),
    "stream": ("stream buffers", "S", "cyan"),
    "kv_cache": ("conversation", "C", "magenta"),
    "activations": ("activations", "A", "yellow"),
    "margin": ("margin", "M", "bright_black"),
}


def shares(plan: PlanInfo, memory: Mapping[str, int]) -> list[Share]:
    """The plan in parts; conversations in what they use now and what they still may."""
    found = []
    for owner, n_bytes in plan.owners.items():
        label, letter, style = _OWNERS.get(owner, (owner.replace("_", " "), "?", "white"))
        if not n_bytes:
            continue
        text = f"{label} {memory_size(n_bytes)}"
        if owner == "kv_cache" and "kv_used" in memory:
            used = min(memory["kv_used"], n_bytes)
            text = f"{label} {memory_size(used)} of {memory_size(n_bytes)}"
            found.append(Share(text, used, letter, "█", style))
            found.append(Share("", n_bytes - used, letter.lower(), "▒", style))
        else:
            found.append(Share(text, n_bytes, letter, "█", style))
    left = (plan.budget or 0) - sum(plan.owners.values())
    if left > 0:
        found.append(Share(f"not needed {memory_size(left)}", left, ".", "░", "bright_black"))
    return found


def cells(sizes: Sequence[int], width: int) -> list[int]:
    """Divide `width` in proportion to `sizes`; whoever has anything gets a cell if they suffice."""
    total = sum(sizes)
    if not total:
        return [0] * len(sizes)
    exact = [size * width / total for size in sizes]
    least = [1 if size else 0 for size in sizes]
    if sum(least) > width:
        least = [0] * len(sizes)
    found = [max(low, int(share)) for low, share in zip(least, exact, strict=True)]
    while sum(found) > width:
        spare = [i for i in range(len(sizes)) if found[i] > least[i]]
        found[max(spare, key=lambda i: found[i] - exact[i])] -= 1
    while sum(found) < width:
        found[max(range(len(sizes)), key=lambda i: exact[i] - found[i])] += 1
    return found


def bar(plan: PlanInfo, memory: Mapping[str, int], width: int, *, blocks: bool) -> list[Line]:
    """A line that shows who has how much of the budget, and its legend, `width` columns wide.

    Args:
        blocks: coloured blocks; otherwise letters, for terminals without colour.
    """
    parts = shares(plan, memory)
    line: Line = []
    for share, n in zip(parts, cells([share.n_bytes for share in parts], width), strict=True):
        if n:
            line.append(((share.block if blocks else share.letter) * n, share.style))
    return [line, *_legend(parts, width, blocks=blocks)]


def _legend(parts: Sequence[Share], width: int, *, blocks: bool) -> Iterator[Line]:
    line: Line = []
    used = 0
    for share in parts:
        if not share.text:
            continue
        label = f" {share.text}"[: max(1, width - 1)]
        gap = 2 if line else 0
        if line and used + gap + 1 + len(label) > width:
            yield line
            line, used, gap = [], 0, 0
        if gap:
            line.append((" " * gap, ""))
        line += [(share.block if blocks else share.letter, share.style), (label, "")]
        used += gap + 1 + len(label)
    if line:
        yield line


def drawn(plan: PlanInfo, memory: Mapping[str, int], console: "Console") -> "Text":
    """The bar as wide as the console, and in its colours if it has any."""
    from rich.text import Text

    coloured = console.color_system is not None and not console.no_color
    blocks = coloured and not console.options.ascii_only
    lines = bar(plan, memory, console.width, blocks=blocks)
    return Text("\n").join(Text.assemble(*line) for line in lines)


def print_bar(plan: PlanInfo, memory: Mapping[str, int]) -> None:
    """Draw the bar below what was printed, if that is on a terminal and there is anything."""
    if not sys.stdout.isatty() or not plan.owners:
        return
    import shutil

    from rich.console import Console

    # rich takes a dumb terminal to be 80 columns wide unless it is told both
    size = shutil.get_terminal_size()
    console = Console(width=size.columns, height=size.lines)
    console.print()
    console.print(drawn(plan, memory, console), highlight=False)


# --- rows ------------------------------------------------------------------------------------


def budget_row(budget: int | None) -> tuple[str, str]:
    """The budget itself."""
    return "budget", memory_size(budget) if budget else "none: as much as it takes"


def plan_rows(plan: PlanInfo, memory: Mapping[str, int]) -> list[tuple[str, str]]:
    """A plan in words; the owners are left to the bar where there is one.

    Args:
        memory: of the status, if it is the plan of the model in memory.
    """
    if plan.smallest is not None:
        return [("fits", f"no; {enough(plan.smallest)} is the smallest budget that would do")]
    rows = []
    total = memory_size(sum(plan.owners.values()))
    owners = ", ".join(share.text for share in shares(plan, memory) if share.text)
    rows.append(("planned", total if sys.stdout.isatty() else f"{total}: {owners}"))
    resident, streamed = memory_size(plan.resident_bytes), memory_size(plan.streamed_bytes)
    if plan.streamed_bytes:
        whole = memory_size(plan.resident_bytes + plan.streamed_bytes)
        rows.append(("stays", f"{resident} of {whole} of weights stay in memory"))
        rows.append(("streamed", f"{streamed} of weights are read from the disk for every token"))
    else:
        rows.append(("stays", f"all weights stay in memory, {resident}"))
        rows.append(("streamed", "nothing"))
    bits = {"f16": "16", "q8": "8"}[plan.kv_type]
    rows.append(("conversation", f"{plan.kv_tokens:,} tokens fit in memory, kept with {bits} bits"))
    if plan.tokens_per_second is not None:
        rows.append(("expected", f"about {speed(plan.tokens_per_second)}"))
    return rows


def use_row(info: StatusInfo) -> tuple[str, str]:
    """What the process takes now, against the budget."""
    memory = info.memory
    rss = memory.get("rss")
    parts = []
    if rss is not None:
        text = f"{memory_size(rss)} in use now"
        if info.budget:
            text += f" of the budget of {memory_size(info.budget)} ({100 * rss / info.budget:.0f} %"
            text += f", {memory_size(rss - info.budget)} too much)" if rss > info.budget else ")"
        parts.append(text)
    for name, words in (("peak_rss", "peak"), ("rss_anonymous", "private")):
        if name in memory:
            parts.append(f"{words} {memory_size(memory[name])}")
    if "cgroup_usage" in memory and "cgroup_limit" in memory:
        usage, limit = memory_size(memory["cgroup_usage"]), memory_size(memory["cgroup_limit"])
        parts.append(f"cgroup {usage} of {limit}")
    return "memory", ", ".join(parts) or "not known on this system"


def speed(tokens_per_second: float) -> str:
    """Tokens/s with as many digits as say something."""
    digits = 1 if tokens_per_second >= 1 else 2
    return f"{tokens_per_second:.{digits}f} tokens/s"
