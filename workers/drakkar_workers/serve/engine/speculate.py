"""Guesses of the next tokens from what was said before (prompt lookup: Saxena, 2023).

Where the last tokens occurred earlier, what followed then is guessed to follow again. The model
checks all guesses in one step, so a wrong one costs some arithmetic and never a wrong token.
"""

from collections.abc import Sequence

LENGTHS = (4, 3, 2)
"""Of the tokens that must recur, the longest first."""


class Ngrams:
    """Where the n-grams of one sequence ended last; grows with it, O(1) per token."""

    def __init__(self) -> None:
        self._seen = 0
        self._after: dict[tuple[int, ...], int] = {}

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """Up to ``count`` tokens that may follow; ``tokens`` only ever grow between calls."""
        # The newest n-gram is left out: it would find itself.
        for end in range(max(self._seen, min(LENGTHS)), len(tokens)):
            for n in LENGTHS:
                if end >= n:
                    self._after[tuple(tokens[end - n : end])] = end
        self._seen = max(self._seen, len(tokens))
        for n in LENGTHS:
            if len(tokens) < n:
                continue
            start = self._after.get(tuple(tokens[-n:]))
            if start is not None:
                return list(tokens[start : start + count])
        return []
