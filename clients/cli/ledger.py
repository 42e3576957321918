"""What memory is used for, for people: the rows of a plan, and the bar with a legend.

A bar is lines of (text, style) pairs; only what draws them loads rich.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assistantd.localisation.width import columns, cut
from assistantd.protocol import PlanInfo, StatusInfo
from clients.cli.sizes import enough, memory_size
from clients.i18n import _, marked

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
    "libraries": (marked("libraries"), "L", "blue"),
    "sessions": (marked("sessions"), "I", "bright_blue"),
    "weights": (marked("weights"), "W", "green"),
    "stream": (marked("stream buffers"), "S", "cyan"),
    "kv_cache": (marked("conversation"), "C", "magenta"),
    "activations": (marked("activations"), "A", "yellow"),
    "margin": (marked("margin"), "M", "bright_black"),
}


def shares(plan: PlanInfo, memory: Mapping[str, int]) -> list[Share]:
    """The plan in parts; conversations in what they use now and what they still may."""
    found = []
    for owner, n_bytes in plan.owners.items():
        label, letter, style = _OWNERS.get(owner, (owner.replace("_", " "), "?", "white"))
        if not n_bytes:
            continue
        label = _(label)
        text = f"{label} {memory_size(n_bytes)}"
        if owner == "kv_cache" and "kv_used" in memory:
            used = min(memory["kv_used"], n_bytes)
            text = _("{label} {used} of {size}").format(
                label=label, used=memory_size(used), size=memory_size(n_bytes)
            )
            found.append(Share(text, used, letter, "█", style))
            found.append(Share("", n_bytes - used, letter.lower(), "▒", style))
        else:
            found.append(Share(text, n_bytes, letter, "█", style))
    left = (plan.budget or 0) - sum(plan.owners.values())
    if left > 0:
        text = _("not needed {size}").format(size=memory_size(left))
        found.append(Share(text, left, ".", "░", "bright_black"))
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
        label = cut(f" {share.text}", max(1, width - 1))
        gap = 2 if line else 0
        if line and used + gap + 1 + columns(label) > width:
            yield line
            line, used, gap = [], 0, 0
        if gap:
            line.append((" " * gap, ""))
        line += [(share.block if blocks else share.letter, share.style), (label, "")]
        used += gap + 1 + columns(label)
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
    return _("budget"), memory_size(budget) if budget else _("none: as much as it takes")


def plan_rows(plan: PlanInfo, memory: Mapping[str, int]) -> list[tuple[str, str]]:
    """A plan in words; the owners are left to the bar where there is one.

    Args:
        memory: of the status, if it is the plan of the model in memory.
    """
    if plan.smallest is not None:
        no = _("no; {size} is the smallest budget that would do")
        return [(_("fits"), no.format(size=enough(plan.smallest)))]
    rows = []
    total = memory_size(sum(plan.owners.values()))
    owners = ", ".join(share.text for share in shares(plan, memory) if share.text)
    rows.append((_("planned"), total if sys.stdout.isatty() else f"{total}: {owners}"))
    resident, streamed = memory_size(plan.resident_bytes), memory_size(plan.streamed_bytes)
    if plan.streamed_bytes:
        whole = memory_size(plan.resident_bytes + plan.streamed_bytes)
        stays = _("{size} of {whole} of weights stay in memory").format(size=resident, whole=whole)
        read = _("{size} of weights are read from the disk for every token").format(size=streamed)
    else:
        stays = _("all weights stay in memory, {size}").format(size=resident)
        read = _("nothing")
    rows += [(_("stays"), stays), (_("streamed"), read)]
    bits = {"f16": "16", "q8": "8"}[plan.kv_type]
    fit = _("{n:,} tokens fit in memory, kept with {bits} bits").format(n=plan.kv_tokens, bits=bits)
    rows.append((_("conversation"), fit))
    if plan.tokens_per_second is not None:
        expected = _("about {speed}").format(speed=speed(plan.tokens_per_second))
        rows.append((_("expected"), expected))
    return rows


def use_row(info: StatusInfo) -> tuple[str, str]:
    """What the process takes now, against the budget."""
    memory = info.memory
    rss = memory.get("rss")
    parts = []
    if rss is not None:
        budget = info.budget
        if not budget:
            text = _("{size} in use now")
        elif rss > budget:
            text = _(
                "{size} in use now of the budget of {budget} ({percent:.0f} %, {excess} too much)"
            )
        else:
            text = _("{size} in use now of the budget of {budget} ({percent:.0f} %)")
        parts.append(
            text.format(
                size=memory_size(rss),
                budget=memory_size(budget or 0),
                percent=100 * rss / (budget or rss or 1),
                excess=memory_size(max(0, rss - (budget or 0))),
            )
        )
    for name, words in (("peak_rss", _("peak {size}")), ("rss_anonymous", _("private {size}"))):
        if name in memory:
            parts.append(words.format(size=memory_size(memory[name])))
    if "cgroup_usage" in memory and "cgroup_limit" in memory:
        usage, limit = memory_size(memory["cgroup_usage"]), memory_size(memory["cgroup_limit"])
        parts.append(_("cgroup {usage} of {limit}").format(usage=usage, limit=limit))
    return _("memory"), ", ".join(parts) or _("not known on this system")


def speed(tokens_per_second: float) -> str:
    """Tokens/s with as many digits as say something."""
    digits = 1 if tokens_per_second >= 1 else 2
    return _("{n} tokens/s").format(n=f"{tokens_per_second:.{digits}f}")
