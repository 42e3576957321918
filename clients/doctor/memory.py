"""Checks of memory: does the model fit the budget, the budget the machine, and is there swap?"""

import re
from collections.abc import Iterator

from clients.cli.output import human_bytes
from clients.doctor.context import Context
from clients.doctor.finding import Finding, ok, problem, skipped, warning
from clients.i18n import _

_SLOW = 1.0
"""Tokens per second below which nobody waits for an answer."""
_SWAPPED_BYTES = 32 << 20
_SAFE_SHARE = 0.98
"""Of a limit that a budget may be: the daemon gives memory back at 97 %."""


def check_memory(context: Context) -> Iterator[Finding]:
    """Does the model fit the budget, and the budget the machine?"""
    found = context.examination.plan
    if found is None:
        yield skipped("memory", context.examination.problems["plan"])
        return
    status = context.status
    budget = status.budget if status is not None else found.budget
    details = {
        "budget": budget,
        "available": found.available,
        "disk": found.disk,
        "memory": found.memory,
    }
    plan = found.plan if status is None or status.plan is None else status.plan
    if plan is None:
        yield skipped("memory", _("without a model there is no plan"), **details)
        return
    if plan.smallest is not None:
        yield problem(
            "memory.budget",
            _("the budget of {budget} is too small for the model; it needs {smallest}").format(
                budget=human_bytes(plan.budget or 0), smallest=human_bytes(plan.smallest)
            ),
            _("the daemon starts without a model"),
            _('set memory_budget = "{size}M" in config.toml, or choose a smaller model').format(
                size=-(-plan.smallest // 2**20)
            ),
            **details,
        )
        return
    planned = sum(plan.owners.values()) - plan.owners.get("margin", 0)
    if status is None and found.available is not None and planned > found.available:
        yield warning(
            "memory.available",
            _("the model will take {planned}, and only {available} are free").format(
                planned=human_bytes(planned), available=human_bytes(found.available)
            ),
            _("the machine swaps, or the kernel ends the daemon or another program"),
            _('set memory_budget = "auto", or end other programs'),
            **details,
        )
        return
    speed = plan.tokens_per_second
    if plan.streamed_bytes and speed is not None and speed < _SLOW:
        yield warning(
            "memory.slow",
            _("at most {speed:.1f} tokens/s: {read} are read from the disk for each").format(
                speed=speed, read=human_bytes(plan.streamed_bytes)
            ),
            _("an answer takes minutes"),
            "assistant models show NAME --budget SIZE",
            **details,
        )
        return
    text = _("planned {planned} of {budget}")
    limit = human_bytes(budget) if budget else _("no budget")
    yield ok("memory", text.format(planned=human_bytes(planned), budget=limit), **details)


def check_cgroup(context: Context) -> Iterator[Finding]:
    """Does the system allow as much as the budget?"""
    status, found = context.status, context.examination.plan
    if status is not None:
        limit, budget = status.memory.get("cgroup_limit"), status.budget
    elif found is not None:
        limit, budget = found.cgroup_limit, found.budget
    else:
        limit = budget = None
    if limit is None:
        yield ok("cgroup", _("no limit"))
    elif budget is None or _SAFE_SHARE * limit < budget:
        yield problem(
            "cgroup.limit",
            _("the system allows the daemon {limit}, its budget is {budget}").format(
                limit=human_bytes(limit),
                budget=human_bytes(budget) if budget is not None else _("none"),
            ),
            _("the kernel makes it slow, or ends it, before it gives memory back itself"),
            _('set memory_budget = "auto", or raise MemoryHigh and MemoryMax of its unit'),
            limit=limit,
            budget=budget,
        )
    else:
        text = _("{limit} allowed, the budget is {budget}")
        text = text.format(limit=human_bytes(limit), budget=human_bytes(budget))
        yield ok("cgroup", text, limit=limit, budget=budget)


def check_swap(context: Context) -> Iterator[Finding]:
    """Is there swap on a memory card, and is the daemon in it?"""
    areas = [line.split() for line in context.read("proc/swaps").splitlines()[1:]]
    names = [area[0] for area in areas if area]
    fine = True
    if context.status is not None:
        text = context.read(f"proc/{context.status.pid}/status")
        found = re.search(r"^VmSwap:\s+(\d+) kB", text, re.MULTILINE)
        swapped = int(found[1]) * 1024 if found else 0
        if swapped > _SWAPPED_BYTES:
            fine = False
            yield warning(
                "swap.used",
                _("{size} of the daemon are swapped out").format(size=human_bytes(swapped)),
                _("answers wait for the disk"),
                _('set a smaller memory_budget, or "auto", and start it again'),
                swapped=swapped,
            )
    cards = [name for name in names if "mmcblk" in name or name.startswith("/var/swap")]
    if cards:
        fine = False
        yield warning(
            "swap.card",
            _("swap lies on the memory card: {names}").format(names=", ".join(cards)),
            _("it is slow and wears the card out"),
            "sudo apt install zram-tools && sudo dphys-swapfile swapoff",
            areas=names,
        )
    if fine:
        yield ok("swap", ", ".join(names) if names else _("none"), areas=names)
