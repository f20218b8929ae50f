"""How long a gang may be silent before it counts as hung: learned from the job's own history."""

FACTOR = 10.0
"""Times the longest silence that was none."""
LEAST_SECONDS = 30.0
GAPS = 50
"""Silences seen before the limit is lowered."""


class Patience:
    """Starts at the job's ``hangTimeoutSeconds`` and is never above it.

    Each verdict of a limit that was learned doubles the next ones: a job with pauses that its past
    did not show is disturbed a few times at most, not again and again.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._longest = 0.0
        self._count = 0
        self._doubt = 1.0

    def note(self, silence: float) -> None:
        """So long it was silent, and then it went on."""
        self._count += 1
        self._longest = max(self._longest, silence)

    @property
    def limit(self) -> float:
        """Seconds."""
        if self._count < GAPS:
            return self._most
        return min(self._most, max(LEAST_SECONDS, FACTOR * self._longest) * self._doubt)

    def used(self) -> None:
        """The gang was restarted because the limit was over."""
        if self.limit < self._most:
            self._doubt *= 2.0
