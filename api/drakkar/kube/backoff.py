"""Waiting longer after each failure, with jitter so that clients do not return in step."""

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Delays in seconds: ``base`` doubled up to ``cap``, each multiplied by 0.5 to 1.0."""

    base: float = 0.5
    cap: float = 30.0
    rng: random.Random = field(default_factory=random.Random)
    failures: int = 0

    def next(self) -> float:
        """The next delay; counts one more failure."""
        delay = min(self.cap, self.base * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return delay * (0.5 + 0.5 * self.rng.random())

    def reset(self) -> None:
        """The thing works again."""
        self.failures = 0
