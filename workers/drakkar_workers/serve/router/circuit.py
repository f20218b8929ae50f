"""A breaker per replica: after some failures in a row it gets a rest, then one request as a trial."""

from typing import Literal

FAILURES = 3
FIRST_REST = 1.0
LONGEST_REST = 30.0


class Circuit:
    """Closed lets requests through; times in seconds of any steady clock."""

    def __init__(self) -> None:
        self._failures = 0
        self._rest = FIRST_REST
        self._until = 0.0
        self._open = False
        self._trial = False

    def state(self, now: float) -> Literal["closed", "open", "half-open"]:
        """half-open: the next request is the trial, unless it is under way."""
        if not self._open:
            return "closed"
        return "open" if now < self._until or self._trial else "half-open"

    def lets_through(self, now: float) -> bool:
        """Whether a request may be sent."""
        return self.state(now) != "open"

    def sent(self, now: float) -> None:
        """A request is sent; after a rest it is the trial."""
        if self._open and now >= self._until:
            self._trial = True

    def succeeded(self) -> None:
        """An answer has begun."""
        self._failures = 0
        self._rest = FIRST_REST
        self._open = self._trial = False

    def failed(self, now: float) -> bool:
        """It did not answer or answered with a fault; whether the circuit has opened by it."""
        self._failures += 1
        was_open, tried = self._open, self._trial
        if tried:
            self._rest = min(2 * self._rest, LONGEST_REST)
        if tried or (not was_open and self._failures >= FAILURES):
            self._open, self._trial = True, False
            self._until = now + self._rest
        return self._open and not was_open

    def unknown(self) -> None:
        """A request ended without telling anything: its client left."""
        self._trial = False
