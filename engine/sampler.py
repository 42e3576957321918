"""From logits to a token: penalties, bias, then greedy or a seeded draw from what is likely.

Order: penalties, logit bias, grammar; temperature 0 takes the best token; otherwise top-k, top-p,
min-p, temperature.
Sources: top-p, Holtzman et al. 2020; min-p, Nguyen et al. 2024; repetition penalty, Keskar 2019.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.errors import EngineError
from engine.i18n import _

if TYPE_CHECKING:
    from engine.grammar import Constraint


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens."""

    max_tokens: int | None = None
    temperature: float = 0.7
    top_k: int = 40
    """0 keeps every token."""
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int = 64
    """Tokens that the penalties look back on."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    grammar: str | dict[str, Any] | None = None
    """"json", or a JSON schema that the answer must satisfy."""
    ignore_eos: bool = False


class Sampler:
    """Chooses the tokens of one sequence; the same seed and logits give the same tokens."""

    def __init__(
        self,
        params: SamplingParams,
        vocab_size: int,
        prompt_ids: Sequence[int],
        constraint: "Constraint | None" = None,
    ) -> None:
        self._params, self._constraint = params, constraint
        self._recent = list(prompt_ids[-params.penalty_window :]) if params.penalty_window else []
        self._random = np.random.Generator(np.random.PCG64(params.seed))
        self._bias = {t: b for t, b in params.logit_bias.items() if 0 <= t < vocab_size}

    def accepted(self, token: int) -> None:
        """Note the token that follows."""
        self._recent.append(token)
        del self._recent[: -self._params.penalty_window]
        if self._constraint is not None and not self._constraint.is_finished:
            self._constraint.accept(token)

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        """The next token. logits: (vocab_size,) f32, not modified.

        Raises:
            EngineError: the logits hold NaN.
        """
        params = self._params
        scores = logits.astype(np.float32, copy=True)
        self._penalize(scores)
        for token, bias in self._bias.items():
            scores[token] += np.float32(bias)
        if self._constraint is not None:
            self._constraint.mask(scores)
        best = int(scores.argmax())  # NaN counts as the largest
        if not np.isfinite(scores[best]):
            raise EngineError(_("the model computed no usable logits; its file may be damaged"))
        if params.temperature <= 0:
            return best
        return self._draw(scores)

    def _penalize(self, scores: npt.NDArray[np.float32]) -> None:
        p = self._params
        if p.repeat_penalty == 1.0 and not p.presence_penalty and not p.frequency_penalty:
            return
        for token, count in Counter(self._recent).items():
            score = scores[token]
            score = score / p.repeat_penalty if score > 0 else score * p.repeat_penalty
            scores[token] = score - count * p.frequency_penalty - p.presence_penalty

    def _draw(self, scores: npt.NDArray[np.float32]) -> int:
        p = self._params
        if 0 < p.top_k < len(scores):
            tokens = np.argpartition(scores, -p.top_k)[-p.top_k :]
        else:
            tokens = np.arange(len(scores))
        # best first; equal scores by token id, so that draws are reproducible
        tokens = tokens[np.lexsort((tokens, -scores[tokens]))]
        chosen = scores[tokens].astype(np.float64)
        probabilities = np.exp(chosen - chosen[0])
        probabilities /= probabilities.sum()
        before = np.cumsum(probabilities) - probabilities
        keep = (before < p.top_p) & (probabilities >= p.min_p * probabilities[0])
        keep[0] = True
        tokens, chosen = tokens[keep], chosen[keep]
        weights = np.exp((chosen - chosen[0]) / p.temperature)
        cumulative = np.cumsum(weights)
        at = np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right")
        return int(tokens[min(int(at), len(tokens) - 1)])
