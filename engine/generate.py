"""The token loop: many sequences, one forward pass at a time.

    engine = Engine.load(path)
    for text in engine.generate(engine.chat.encode(messages), SamplingParams()):
        print(text, end="")

`Engine.step` makes one pass over the weights for all sequences at once: the next token of each
that decodes, and a chunk of the prompt of those that do not yet. It belongs to one thread.
Sequences come and go between steps; a token's logits do not depend on its neighbours.
"""

import enum
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from engine import native
from engine.chat import ChatTemplate
from engine.config import ModelConfig, read_config
from engine.errors import EngineError, OutOfCacheError, PromptTooLongError
from engine.gguf import GGUFFile, open_gguf
from engine.i18n import _
from engine.info import DEFAULT_KV_TOKENS, EngineInfo, KvType, engine_info
from engine.kernels import PAGE
from engine.kv_cache import KVCache, SequenceCache
from engine.kv_disk import fingerprint, open_disk
from engine.lookup import PromptLookup
from engine.pages import resident_bytes, trim
from engine.plan import LEAST_KV_TOKENS, MemoryPlan, Planner, Settings
from engine.runner import Model
from engine.sampler import Sampler, SamplingParams
from engine.stops import StopMatcher
from engine.stream import MAX_THREADS
from engine.threads import physical_cores
from engine.tokenizer import StreamDecoder, Tokenizer, load_tokenizer
from engine.weights import Weights

CHUNK_SECONDS = 0.1
"""A pass should not take longer, so that cancelling and other sequences' tokens do not wait."""
MIN_CHUNK = 16
"""Prompt rows of a pass at least: fewer would waste the pass over the weights."""

ProgressCallback = Callable[[str, int, int], None]


class Phase(enum.Enum):
    """Where a sequence is."""

    PREFILL = "prefill"
    DECODE = "decode"
    FINISHED = "finished"


@dataclass(eq=False)
class Sequence:
    """One prompt and its continuation."""

    prompt_ids: list[int]
    params: SamplingParams
    max_tokens: int
    sampler: Sampler
    stops: StopMatcher
    decoder: StreamDecoder
    cache: SequenceCache
    n_cached: int
    """Prompt tokens that were not computed again."""
    reserved_pages: int
    lookup: PromptLookup | None = None
    phase: Phase = Phase.PREFILL
    completion_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None

    @property
    def prefilled(self) -> int:
        """Prompt tokens computed or found in the cache."""
        return min(self.cache.length, len(self.prompt_ids))


@dataclass(frozen=True)
class StepOutput:
    """What one step did for one sequence."""

    sequence: Sequence
    text: str
    """New text; may be empty while a character or a stop string is incomplete."""
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"] | None
    prefilled: int
    prefill_total: int


class Engine:
    """A model ready to answer. Not thread-safe: one thread loads, steps and closes it.

    Attributes:
        info: what the model is.
        tokenizer, chat: its vocabulary and its chat template.
        tokens_guessed, guesses_right: by prompt lookup, since the start.
        plan: how the memory is used, see plan.py.
        base_bytes: what the process takes without a model.
    """

    def __init__(
        self,
        file: GGUFFile,
        config: ModelConfig,
        model: Model,
        weights: Weights,
        planner: Planner,
        plan: MemoryPlan,
        prompt_lookup: bool = True,
    ) -> None:
        self._file, self._config = file, config
        self._model, self._weights = model, weights
        self._planner, self.plan = planner, plan
        self.base_bytes = planner.base_bytes
        self.info: EngineInfo = engine_info(file, config)
        self.tokenizer: Tokenizer = load_tokenizer(file.metadata)
        if self.tokenizer.vocab_size > config.vocab_size:
            raise EngineError(
                f"the tokenizer has {self.tokenizer.vocab_size} tokens, "
                f"the embedding {config.vocab_size} rows"
            )
        self.chat = ChatTemplate.from_metadata(file.metadata, self.tokenizer)
        self._cache = KVCache(config, plan.kv_tokens, plan.kv_type)
        self._kv_limit = self._cache.n_pages
        self._prompt_lookup = prompt_lookup
        self.tokens_guessed, self.guesses_right = 0, 0
        self._sequences: list[Sequence] = []
        self._seconds_per_row: float | None = None
        self._next_prefill = 0  # which prefilling sequence is served first, in turn

    @property
    def kv_tokens(self) -> int:
        """Capacity of the KV cache, in tokens, over all sequences."""
        return self._kv_limit * PAGE

    @property
    def context_length(self) -> int:
        """The most tokens that a sequence can have, prompt and answer."""
        return min(self._config.max_context, self.kv_tokens)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        n_threads: int | None = None,
        kv_tokens: int = DEFAULT_KV_TOKENS,
        kv_type: KvType = "f16",
        kv_dir: Path | None = None,
        kv_disk_bytes: int = 0,
        prompt_lookup: bool = True,
        budget: int | None = None,
        base_bytes: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> "Engine":
        """Map a GGUF and get ready to compute.

        Args:
            n_threads: worker threads; None for one per physical core.
            kv_tokens: capacity of the KV cache over all sequences, in tokens.
            kv_type: "f16", or "q8" for half the memory (kernels/attention.py).
            kv_dir: folder of this engine's own, for what the KV cache has no room for, at most
                kv_disk_bytes; `close` saves the cache there and the next `load` finds it.
            prompt_lookup: guess tokens from the text so far and check several in one pass; the
                answer is the same with and without.
            budget: bytes that the whole process may use; None for as much as it takes. Weights
                that do not fit are streamed from the disk, and the cache may get smaller.
            base_bytes: what the process takes without a model, where another one is in memory,
                for which the plan leaves no room; None to measure it.
            progress: called with (message, completed, total); loading ends with what it raises.

        Raises:
            EngineError: the file is damaged, its model not supported, or compiling failed.
            OverBudgetError: the budget is too small for this model.
        """
        report = progress or (lambda message, completed, total: None)
        if not native.is_warm():
            report(_("compiling the kernels for this processor (once, about a minute)"), 0, 3)
            native.warm(native.NEEDED)
        native.function("forward_pass")
        if base_bytes is None:
            base_bytes = resident_bytes()
        report(_("reading the model"), 1, 3)
        n_threads = min(n_threads or physical_cores(), MAX_THREADS)
        file = open_gguf(path)
        try:
            config = read_config(file)
            planner = Planner(file, config, base_bytes, Settings(n_threads, kv_tokens, kv_type))
            plan = planner.plan(budget)
            weights = Weights(file, config, n_threads, plan.max_rows)
            try:
                model = Model(
                    config,
                    weights,
                    max_rows=plan.max_rows,
                    max_outputs=plan.max_outputs,
                    max_context=min(config.max_context, plan.kv_tokens + PAGE),
                    n_threads=n_threads,
                )
                try:
                    engine = cls(file, config, model, weights, planner, plan, prompt_lookup)
                    file.forget_lists()
                    trim()  # reading the header has left a few megabytes
                    if plan.residency is not None:
                        weights.hold(
                            plan.residency, lambda n, of: report(_("reading the weights"), n, of)
                        )
                    engine._warm_up()
                    if kv_dir is not None and kv_disk_bytes > 0:
                        engine.use_disk(kv_dir, kv_disk_bytes)
                except BaseException:
                    model.close()
                    raise
            except BaseException:
                weights.close()
                raise
        except BaseException:
            file.close()
            raise
        report(_("ready"), 3, 3)
        return engine

    def _warm_up(self) -> None:
        """Compute one token, so that the first request does not pay for compiling and mapping."""
        sequence = self._cache.open([0])
        sequence.reserve(1)
        self._model.forward(
            np.zeros(1, np.int32),
            np.zeros(1, np.int32),
            np.zeros(1, np.int32),
            sequence.page_table[None],
            np.zeros(1, np.int32),
            self._cache,
        )
        sequence.close()

    def use_disk(self, folder: Path, n_bytes: int) -> None:
        """Keep in a folder of this engine's own what the KV cache has no room for.

        What is saved there is found again if it is this model's, and deleted if it is not, or if
        there are conversations in the cache already.
        """
        own = fingerprint(self._file, self.plan.kv_type, self._cache.page_bytes)
        disk = open_disk(folder, self._cache.page_bytes, n_bytes, own)
        if disk is not None:
            saved = disk.saved
            if self._cache.pages_used:
                disk.file.clear()
                saved = ()
            self._cache.attach(disk.file, saved)
        if not self._weights.is_mapped:
            self._weights.drop_map()  # the fingerprint has read the header

    # --- sequences ---------------------------------------------------------------------------

    def has_room(self, n_prompt_tokens: int, max_tokens: int | None = None) -> bool:
        """Whether a sequence of this size could be started now.

        The KV cache it may come to need is set aside for it, so that a sequence once started
        never runs out.
        """
        if len(self._sequences) >= self._model.max_outputs:
            return False
        needed = self._pages_for(n_prompt_tokens, max_tokens)
        return needed <= self._cache.limit - self._reserved_pages()

    def _reserved_pages(self) -> int:
        return sum(sequence.reserved_pages for sequence in self._sequences)

    def _pages_for(self, n_prompt_tokens: int, max_tokens: int | None) -> int:
        n_tokens = n_prompt_tokens + self._limit(n_prompt_tokens, max_tokens)
        return -(-n_tokens // PAGE)

    def _limit(self, n_prompt_tokens: int, max_tokens: int | None) -> int:
        room = self.context_length - n_prompt_tokens
        return room if max_tokens is None else min(room, max_tokens)

    def start(self, prompt_ids: list[int], params: SamplingParams) -> Sequence:
        """Add a sequence; the following steps compute it.

        Raises:
            PromptTooLongError: no room for the prompt and one more token in the context.
            OutOfCacheError: has_room said no.
            GrammarError: params.grammar is not a usable schema.
            EngineError: a token id is outside the vocabulary.
        """
        if len(prompt_ids) >= self.context_length:
            raise PromptTooLongError(len(prompt_ids), self.context_length - 1)
        if not prompt_ids:
            raise EngineError(_("the prompt is empty; give at least one token"))
        if not all(0 <= token < self._config.vocab_size for token in prompt_ids):
            raise EngineError("a token id of the prompt is outside the vocabulary")
        if not self.has_room(len(prompt_ids), params.max_tokens):
            raise OutOfCacheError("the KV cache has no room for this prompt now")
        constraint = None
        if params.grammar is not None:
            from engine.grammar import Constraint

            constraint = Constraint(self.tokenizer, params.grammar)
        sampler = Sampler(params, self._config.vocab_size, prompt_ids, constraint)
        cache = self._cache.open(prompt_ids, self._seconds_per_row)
        sequence = Sequence(
            prompt_ids=prompt_ids,
            params=params,
            max_tokens=self._limit(len(prompt_ids), params.max_tokens),
            sampler=sampler,
            stops=StopMatcher(params.stop),
            decoder=self.tokenizer.stream(prompt_ids),
            cache=cache,
            n_cached=cache.length,
            reserved_pages=self._pages_for(len(prompt_ids), params.max_tokens),
            lookup=PromptLookup(prompt_ids, bold=self.plan.streamed_bytes > 0)
            if self._prompt_lookup
            else None,
        )
        self._sequences.append(sequence)
        return sequence

    def finish(self, sequence: Sequence, reason: str) -> str:
        """End a sequence, at any time; its tokens stay as a cache. Returns text held back."""
        if sequence.phase is Phase.FINISHED:
            return ""
        sequence.phase = Phase.FINISHED
        sequence.finish_reason = reason
        self._sequences.remove(sequence)
        sequence.cache.close()
        if self._cache.limit != self._kv_limit:
            self._apply_kv_limit()
        return sequence.stops.push(sequence.decoder.flush())[0] + sequence.stops.flush()

    @property
    def ticks(self) -> int:
        """Clock ticks that passes have booked; may be read from any thread, during a pass too."""
        return int(self._model.ticks.sum())

    @property
    def n_active(self) -> int:
        """Sequences started and not finished."""
        return len(self._sequences)

    # --- one pass ----------------------------------------------------------------------------

    def step(self) -> list[StepOutput]:
        """One forward pass over all sequences; one StepOutput for each that took part."""
        rows = self._plan()
        if not rows:
            return []
        tokens: list[int] = []
        positions: list[int] = []
        numbers: list[int] = []
        tables: list[np.ndarray] = []
        outputs: list[int] = []
        for sequence, new in rows:
            length, end = sequence.cache.length, sequence.cache.length + len(new)
            sequence.cache.reserve(end)
            positions.extend(range(length, end))
            numbers.extend([len(tables)] * len(new))
            tables.append(sequence.cache.page_table)
            if sequence.phase is Phase.DECODE:
                outputs.extend(range(len(tokens), len(tokens) + len(new)))
            elif end >= len(sequence.prompt_ids):
                outputs.append(len(tokens) + len(new) - 1)
            tokens.extend(new)
        started = time.perf_counter()
        logits = self._model.forward(
            np.array(tokens, np.int32),
            np.array(positions, np.int32),
            np.array(numbers, np.int32),
            np.stack(tables),
            np.array(outputs, np.int32),
            self._cache,
        )
        self._learn_speed(len(tokens), time.perf_counter() - started)
        results = []
        next_logits = iter(logits)
        for sequence, new in rows:
            if sequence.phase is Phase.DECODE:
                results.append(self._check(sequence, new, [next(next_logits) for _ in new]))
                continue
            sequence.cache.extend(new)
            if sequence.cache.length >= len(sequence.prompt_ids):
                results.append(self._advance(sequence, next(next_logits)))
            else:
                results.append(_output(sequence, "", ()))
        return results

    def _plan(self) -> list[tuple[Sequence, list[int]]]:
        """The rows of the next pass: a token of each that decodes, then prompt chunks in turn."""
        decoding = [s for s in self._sequences if s.phase is Phase.DECODE]
        prefilling = [s for s in self._sequences if s.phase is Phase.PREFILL]
        spare = self._model.max_outputs - len(
            self._sequences
        )  # guesses are looked at like other outputs
        rows = []
        for sequence in decoding:
            guess = self._guess(sequence, spare)
            spare -= len(guess)
            rows.append((sequence, [sequence.completion_ids[-1], *guess]))
        room = self._chunk_rows() - sum(len(new) for _, new in rows)
        if prefilling:
            self._next_prefill = (self._next_prefill + 1) % len(prefilling)
            for sequence in prefilling[self._next_prefill :] + prefilling[: self._next_prefill]:
                if room <= 0:
                    break
                chunk = sequence.prompt_ids[sequence.cache.length :][:room]
                rows.append((sequence, chunk))
                room -= len(chunk)
        return rows

    def _guess(self, sequence: Sequence, limit: int) -> list[int]:
        if sequence.lookup is None:
            return []
        # the last token needs no successor in the cache
        left = sequence.max_tokens - len(sequence.completion_ids) - 1
        return sequence.lookup.guess(min(limit, left))

    def _chunk_rows(self) -> int:
        most = self._model.max_rows
        if self.plan.streamed_bytes or self._seconds_per_row is None:
            # while weights are streamed a pass takes as long with one row as with many
            return most
        return max(min(MIN_CHUNK, most), min(most, int(CHUNK_SECONDS / self._seconds_per_row)))

    def _learn_speed(self, n_rows: int, seconds: float) -> None:
        if n_rows >= MIN_CHUNK:
            per_row = seconds / n_rows
            before = self._seconds_per_row or per_row
            self._seconds_per_row = 0.7 * before + 0.3 * per_row

    def _check(self, sequence: Sequence, new: list[int], logits: list[np.ndarray]) -> StepOutput:
        """Choose tokens for as long as the guess was what the sampler chooses.

        Each token is drawn from the model's own distribution after the tokens before it, so
        neither the text nor its distribution depends on the guesses.
        """
        text = ""
        token_ids: tuple[int, ...] = ()
        for i in range(len(new)):
            sequence.cache.extend(new[i : i + 1])
            output = self._advance(sequence, logits[i])
            text, token_ids = text + output.text, token_ids + output.token_ids
            if output.finish_reason or i + 1 == len(new) or token_ids[-1] != new[i + 1]:
                break
        if len(new) > 1 and sequence.lookup is not None:
            right = len(token_ids) - 1
            sequence.lookup.learn(len(new) - 1, right)
            self.tokens_guessed += len(new) - 1
            self.guesses_right += right
        return _output(sequence, text, token_ids, output.finish_reason)

    def _advance(self, sequence: Sequence, logits: np.ndarray) -> StepOutput:
        """Choose the next token and see what it means for the text."""
        sequence.phase = Phase.DECODE
        token = sequence.sampler.sample(logits)
        sequence.sampler.accepted(token)
        sequence.completion_ids.append(token)
        if sequence.lookup is not None:
            sequence.lookup.append(token)
        if token in self.tokenizer.eog_ids and not sequence.params.ignore_eos:
            return _output(sequence, self.finish(sequence, "stop"), (token,), "stop")
        text, stopped = sequence.stops.push(sequence.decoder.push(token))
        if stopped:
            self.finish(sequence, "stop")
            return _output(sequence, text, (token,), "stop")
        if len(sequence.completion_ids) >= sequence.max_tokens:
            return _output(sequence, text + self.finish(sequence, "length"), (token,), "length")
        return _output(sequence, text, (token,))

    def generate(self, prompt_ids: list[int], params: SamplingParams) -> Iterator[str]:
        """Text of one sequence, piece by piece; for use without a daemon."""
        sequence = self.start(prompt_ids, params)
        try:
            while sequence.phase is not Phase.FINISHED:
                for output in self.step():
                    if output.sequence is sequence and output.text:
                        yield output.text
        finally:
            self.finish(sequence, "cancelled")

    # --- memory ------------------------------------------------------------------------------

    @property
    def streamed_bytes(self) -> int:
        """Bytes of weights that were read from the disk for passes so far; for any thread."""
        return self._weights.streamed_bytes

    def memory(self) -> dict[str, int]:
        """Bytes of the cache that are in use: kv_used. What is planned is in `plan`."""
        return {"kv_used": self._cache.pages_used * self._cache.page_bytes}

    def set_budget(self, budget: int | None) -> MemoryPlan:
        """Change the budget of a running model, between two steps.

        Weights are given up for streaming, or come back; the cache shrinks or grows, as far as
        running sequences allow.

        Raises:
            OverBudgetError: too small; nothing has changed.
            ReadError: weights could not be read; they are mapped now.
        """
        reserved = self._reserved_pages() * PAGE
        plan = self._planner.replan(self.plan, budget, max(reserved, LEAST_KV_TOKENS))
        self.limit_kv(plan.kv_tokens)
        if plan.residency is None:
            self._weights.unhold()
        elif plan.residency != self._weights.residency:
            self._weights.hold(plan.residency)
        self.plan = plan
        return plan

    def rest(self) -> None:
        """Give back the memory of the weights; the next step brings them back."""
        self._weights.rest()
        trim()

    def drop_caches(self) -> None:
        """Give back what nobody uses: cached beginnings, pages of the file, free memory."""
        self._cache.set_limit(self._reserved_pages())
        self._apply_kv_limit()
        self._weights.drop_map()  # what is mapped comes back as it is needed
        trim()

    def limit_kv(self, n_tokens: int) -> int:
        """Hold at most so many tokens in the KV cache, up to what it was made with.

        What is kept only as a cache goes to disk at once; sequences keep what was set aside for
        them, and it goes when they end. `context_length` follows.

        Returns:
            The tokens that may be held now.
        """
        self._kv_limit = max(1, min(n_tokens // PAGE, self._cache.n_pages))
        return self._apply_kv_limit()

    def _apply_kv_limit(self) -> int:
        return PAGE * self._cache.set_limit(max(self._kv_limit, self._reserved_pages()))

    def forget_cached(self) -> OSError | None:
        """Forget all keys and values but those in use, in memory and on disk; these follow.

        Returns what the disk refused, if it did.
        """
        return self._cache.clear()

    def close(self) -> None:
        """Save the KV cache if it has a folder, end the worker threads and unmap the model."""
        for sequence in list(self._sequences):
            self.finish(sequence, "cancelled")
        self._cache.save()
        self._model.close()
        self._weights.close()
        self._file.close()


def _output(
    sequence: Sequence,
    text: str,
    token_ids: tuple[int, ...],
    finish_reason: Literal["stop", "length"] | None = None,
) -> StepOutput:
    return StepOutput(
        sequence, text, token_ids, finish_reason, sequence.prefilled, len(sequence.prompt_ids)
    )
