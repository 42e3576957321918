"""Guessing the next tokens from the text so far: prompt lookup (Saxena 2023).

An answer that quotes, edits or summarises repeats runs of its prompt. The last NGRAM tokens are
looked for earlier in the text; what followed there is the guess. Guessed tokens are computed in
the same pass as the last one, and count only as far as the sampler chooses the same (generate.py),
so the answer is the one that would have come without.
"""

from collections.abc import Sequence

NGRAM = 3
"""Tokens that must agree before a guess is made: fewer guess wrong too often to pay."""
MIN_GUESS, MAX_GUESS = 3, 15
"""Tokens of a guess. One pass computes a multiple of four rows, so 4 and 16 with the last token."""
BOLD_NGRAM, BOLD_GUESS = 2, 11
"""The same where rows cost next to nothing, because the pass waits for the disk anyway."""
MAX_PAUSE = 32
"""Tokens without a guess, at most, after guesses that were wrong."""


class PromptLookup:
    """Guesses for one sequence.

    Args:
        bold: guess more, on less evidence, and never pause.
    """

    def __init__(self, tokens: Sequence[int], *, bold: bool = False) -> None:
        self._bold = bold
        self._n, self._least = (BOLD_NGRAM, BOLD_GUESS) if bold else (NGRAM, MIN_GUESS)
        self._tokens: list[int] = []
        self._next: dict[tuple[int, ...], int] = {}  # n-gram → where its latest continuation is
        self._length = self._least
        self._pause = 0
        self._misses = 0
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """Note the token that follows."""
        if len(self._tokens) >= self._n:
            self._next[tuple(self._tokens[-self._n :])] = len(self._tokens)
        self._tokens.append(token)
        self._pause = max(0, self._pause - 1)

    def guess(self, limit: int) -> list[int]:
        """What may come next, at most `limit` tokens; often nothing."""
        if self._pause or limit < 1:
            return []
        start = self._next.get(tuple(self._tokens[-self._n :]))
        if start is None:
            return []
        return self._tokens[start : start + min(limit, self._length)]

    def learn(self, n_guessed: int, n_right: int) -> None:
        """Guess more boldly after a right guess, pause for longer and longer after wrong ones."""
        if n_right == n_guessed:
            self._length = min(MAX_GUESS, 2 * self._length + 1)
            self._misses = 0
        elif n_right > 0:
            self._length = max(self._least, n_right)
            self._misses = 0
        else:
            self._length = self._least
            self._misses += 1
            self._pause = 0 if self._bold else min(MAX_PAUSE, 2**self._misses)
