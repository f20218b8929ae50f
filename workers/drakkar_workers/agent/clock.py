"""Time for decisions: monotonic seconds, which no clock adjustment disturbs, and their dates."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """Converts readings of the monotonic clock; tests give their own offset."""

    offset: float = field(default_factory=lambda: time.time() - time.monotonic())

    def wall(self, now: float) -> float:
        """Seconds since the epoch."""
        return now + self.offset

    def date(self, now: float) -> datetime:
        """As Kubernetes writes it: UTC, whole seconds."""
        return datetime.fromtimestamp(self.wall(now), UTC).replace(microsecond=0)
