"""A plan of the memory that a model may use: what stays, what is streamed, how much is remembered.

Made before anything is loaded, from the file's header alone (no numba, no weights read). Every
byte of the budget has an owner:

    libraries      interpreter, libraries, kernels, vocabulary
    sessions       requests and conversations that are worked on: text, samplers, the database
    weights        resident units, embedding rows, norms; all of the file if it is used in place
    stream         the ring that streamed units go through
    kv_cache       what conversations have left in memory
    activations    buffers of a pass
    margin         for what is not foreseen: fragments, messages, the system's own tables

What fits whole is used in place. Otherwise conversations get their share first, at most, then
everything left is for weights that stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.config import ModelConfig, read_config
from engine.errors import OverBudgetError
from engine.gguf import GGUFFile, open_gguf
from engine.info import MAX_OUTPUTS, MAX_ROWS, KvType, page_bytes
from engine.kernels import PAGE
from engine.residency import (
    Residency,
    Unit,
    choose,
    comfortable_ring,
    smallest_ring,
    units_of,
)
from engine.runner import buffer_bytes

MARGIN_SHARE, MARGIN_BYTES = 0.03, 9 << 20
"""Of what is planned, and at least, kept free."""
VOCABULARY_BYTES = 200
"""For each token: its text, its place in tables, what reading the header leaves behind."""
SESSION_BYTES = 4 << 20
SAMPLER_BYTES = 24
"""Requests that are worked on: in all, and for each token of the vocabulary."""
PASS_SHARE = 1 / 32
"""Of the budget: what the buffers of a pass may take, if fewer rows would do."""
KV_SHARE, MOST_KV_SHARE = 0.1, 0.15
"""Of the budget: what conversations get while weights are being streamed, and what they get at
most to have room for GOOD_KV_TOKENS."""
SMALL_TYPE: KvType = "q8"
GOOD_KV_TOKENS = 2048
"""So many are worth more than weights in memory, fewer are not."""
LEAST_KV_TOKENS = 512
"""A shorter memory than this is of no use to anybody."""
PASSES = ((MAX_ROWS, MAX_OUTPUTS), (64, 16), (32, 8), (16, 2))
"""Rows of a pass and rows whose logits are computed, the less the tighter the budget."""


@dataclass(frozen=True)
class Settings:
    """What was asked for; a plan may give less.

    Attributes:
        kv_tokens: tokens of conversation to keep in memory, over all sequences.
        kv_type: "f16" or "q8", which is taken anyway when memory is tight.
    """

    n_threads: int
    kv_tokens: int
    kv_type: KvType = "f16"


@dataclass(frozen=True)
class MemoryPlan:
    """What a model will use of a budget.

    Attributes:
        budget: bytes, or None for as much as it takes.
        owners: bytes by owner; their sum is `total`.
        residency: which weights stay and which are streamed; None if all are used in place.
        pass_bytes: bytes of weights that a pass reads, from wherever.
        kv_tokens, kv_most: of conversation now, and what a larger budget may bring back.
        max_rows, max_outputs: of a pass.
    """

    budget: int | None
    residency: Residency | None
    owners: dict[str, int]
    kv_tokens: int
    kv_most: int
    kv_type: KvType
    pass_bytes: int
    max_rows: int
    max_outputs: int

    @property
    def total(self) -> int:
        """Bytes that are spoken for."""
        return sum(self.owners.values())

    @property
    def resident_bytes(self) -> int:
        """Bytes of weights that stay in memory, in place or not."""
        return self.pass_bytes - self.streamed_bytes

    @property
    def streamed_bytes(self) -> int:
        """Bytes that a pass reads from the disk."""
        return self.residency.streamed_bytes if self.residency else 0

    def tokens_per_second(self, disk: float, memory: float, n_together: int = 1) -> float:
        """Decoding speed to expect; disk and memory in bytes per second.

        Reading and computing overlap, so the slower of the two counts.
        """
        seconds = self.pass_bytes / memory
        if self.streamed_bytes:
            seconds = max(seconds, self.streamed_bytes / disk)
        return n_together / seconds


class Planner:
    """Plans for one model.

    Args:
        base_bytes: what the process takes without a model.
    """

    def __init__(
        self, file: GGUFFile, config: ModelConfig, base_bytes: int, settings: Settings
    ) -> None:
        self._config, self._settings = config, settings
        self.units: Sequence[Unit] = units_of(file, config)
        self._file_bytes = sum(t.n_bytes for t in file.tensors.values())
        embedding = file.tensors["token_embd.weight"]
        row_bytes = embedding.n_bytes // embedding.n_rows
        self._vectors = 4 * config.dim * (2 * config.n_layers + 1) + MAX_ROWS * row_bytes
        self.base_bytes = base_bytes
        self._libraries = base_bytes + VOCABULARY_BYTES * config.vocab_size
        self._sessions = SESSION_BYTES + SAMPLER_BYTES * config.vocab_size
        self._kv_tokens = min(settings.kv_tokens, 4 * config.max_context)

    def plan(self, budget: int | None) -> MemoryPlan:
        """The best use of a budget.

        Raises:
            OverBudgetError: it is too small for this model; the error has the smallest.
        """
        kv_tokens, kv_type = self._kv_tokens, self._settings.kv_type
        whole = self._assemble(budget, kv_tokens, kv_type, PASSES[0], None)
        if budget is None or whole.total <= budget:
            return whole
        shorter = self._in_place(budget)
        if shorter is not None:
            return shorter
        if self._kv(kv_tokens, kv_type) > KV_SHARE * budget:
            kv_type = SMALL_TYPE
        self._check(budget, self._activations(PASSES[-1], LEAST_KV_TOKENS), SMALL_TYPE)
        for rows in PASSES:
            # the largest pass that takes no more than its share of the budget, and leaves room
            activations = self._activations(rows, kv_tokens)
            room = self._room(budget, activations)
            if activations <= PASS_SHARE * budget and room >= self._least(kv_type):
                break
        else:
            kv_tokens, kv_type = min(kv_tokens, LEAST_KV_TOKENS), SMALL_TYPE
            room = self._room(budget, self._activations(rows, kv_tokens))
        kv_tokens, residency = self._share_out(budget, room, kv_tokens, kv_type)
        return self._assemble(budget, kv_tokens, kv_type, rows, residency)

    def _in_place(self, budget: int) -> MemoryPlan | None:
        """All weights in place with a shorter memory, if it is still a good one."""
        rows = PASSES[0]
        kinds: tuple[KvType, KvType] = (self._settings.kv_type, SMALL_TYPE)
        for kv_type in kinds:
            room = self._room(budget, self._activations(rows, self._kv_tokens)) - self._file_bytes
            kv_tokens = min(self._kv_tokens, room // page_bytes(self._config, kv_type) * PAGE)
            if kv_tokens >= min(self._kv_tokens, GOOD_KV_TOKENS):
                return self._assemble(budget, kv_tokens, kv_type, rows, None)
        return None

    def replan(
        self, running: MemoryPlan, budget: int | None, kv_least: int = LEAST_KV_TOKENS
    ) -> MemoryPlan:
        """A plan for another budget while a model runs.

        Weights and the length of the cache can change then; the buffers of a pass, the kind of
        the cache and its greatest length (kv_most) cannot.

        Args:
            kv_least: tokens that the cache must have room for: what is in use.

        Raises:
            OverBudgetError: the budget is too small for what is running.
        """
        rows = (running.max_rows, running.max_outputs)
        whole = self._assemble(budget, running.kv_most, running.kv_type, rows, None)
        whole = replace(whole, kv_most=running.kv_most)
        if budget is None or whole.total <= budget:
            return whole
        activations = self._activations(rows, running.kv_most)
        self._check(budget, activations, running.kv_type, kv_least)
        room = self._room(budget, activations)
        kv_tokens, residency = self._share_out(
            budget, room, running.kv_most, running.kv_type, kv_least
        )
        plan = self._assemble(budget, kv_tokens, running.kv_type, rows, residency)
        return replace(plan, kv_most=running.kv_most)

    @property
    def _base(self) -> int:
        """What does not depend on the budget."""
        return self._libraries + self._sessions + self._vectors

    # --- sums --------------------------------------------------------------------------------

    def _kv(self, n_tokens: int, kv_type: KvType) -> int:
        return -(-n_tokens // PAGE) * page_bytes(self._config, kv_type)

    def _activations(self, rows: tuple[int, int], kv_tokens: int) -> int:
        return buffer_bytes(
            self._config,
            max_rows=rows[0],
            max_outputs=rows[1],
            max_context=min(self._config.max_context, kv_tokens + PAGE),
            n_threads=self._settings.n_threads,
        )

    def _margin(self, budget: int | None) -> int:
        return max(MARGIN_BYTES, int(MARGIN_SHARE * (budget or 0)))

    def _room(self, budget: int, activations: int) -> int:
        """What a budget leaves for the cache, the ring, and weights that stay."""
        return budget - self._margin(budget) - self._base - activations

    def _least(self, kv_type: KvType, kv_least: int = LEAST_KV_TOKENS) -> int:
        """The smallest room that will do."""
        least_kv = self._kv(min(self._kv_tokens, kv_least), kv_type)
        return smallest_ring(self.units) + least_kv

    def _check(
        self, budget: int, activations: int, kv_type: KvType, kv_least: int = LEAST_KV_TOKENS
    ) -> None:
        fixed = self._base + activations + self._least(kv_type, kv_least)
        smallest = max(fixed + MARGIN_BYTES, int(fixed / (1 - MARGIN_SHARE)))
        if budget < smallest:
            raise OverBudgetError(budget, smallest)

    def _share_out(
        self,
        budget: int,
        room: int,
        kv_tokens: int,
        kv_type: KvType,
        kv_least: int = LEAST_KV_TOKENS,
    ) -> tuple[int, Residency]:
        """Tokens to remember, and weights to keep, in `room` bytes."""
        page = page_bytes(self._config, kv_type)
        comfortable = comfortable_ring(self.units)
        weights = sum(unit.n_bytes for unit in self.units)
        if room - self._kv(min(kv_tokens, kv_least), kv_type) >= weights:
            # all weights can stay, so that all the rest is for conversations
            most = (room - weights) // page * PAGE
            return min(kv_tokens, most), choose(self.units, weights, comfortable)
        good = max(int(KV_SHARE * budget), self._kv(GOOD_KV_TOKENS, kv_type))
        fair = min(good, int(MOST_KV_SHARE * budget), room - comfortable) // page * PAGE
        kv_tokens = min(kv_tokens, max(kv_least, fair))
        room -= self._kv(kv_tokens, kv_type)
        ring = comfortable if room >= comfortable else smallest_ring(self.units)
        return kv_tokens, choose(self.units, room - ring, ring)

    def _assemble(
        self,
        budget: int | None,
        kv_tokens: int,
        kv_type: KvType,
        rows: tuple[int, int],
        residency: Residency | None,
    ) -> MemoryPlan:
        resident = residency.resident_bytes if residency else self._file_bytes
        owners = {
            "libraries": self._libraries,
            "sessions": self._sessions,
            "weights": resident + self._vectors,
            "stream": residency.ring_bytes if residency else 0,
            "kv_cache": self._kv(kv_tokens, kv_type),
            "activations": self._activations(rows, kv_tokens),
        }
        taken = sum(owners.values())
        # a large budget needs no large margin: it is what is taken that may turn out to be more
        left = max(MARGIN_BYTES, int(MARGIN_SHARE * taken))
        if residency and budget is not None:
            left = budget - taken
        return MemoryPlan(
            budget=budget,
            residency=residency,
            owners={**owners, "margin": left},
            kv_tokens=kv_tokens,
            kv_most=kv_tokens,
            kv_type=kv_type,
            pass_bytes=sum(unit.n_bytes for unit in self.units),
            max_rows=rows[0],
            max_outputs=rows[1],
        )


def plan_for(path: Path, base_bytes: int, settings: Settings, budget: int | None) -> MemoryPlan:
    """The plan for a model file, without loading it.

    Args:
        base_bytes: what the process takes without a model.

    Raises:
        EngineError: the file is damaged, or its model not supported.
        OverBudgetError: the budget is too small for it.
    """
    with open_gguf(path, lists=False) as file:
        return Planner(file, read_config(file), base_bytes, settings).plan(budget)
