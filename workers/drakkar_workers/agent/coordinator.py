"""The gang's state machine on the event loop: many wait for its news at once."""

import asyncio
import logging
import time

from drakkar.protocol import Report
from drakkar_workers.agent.gang import Gang
from drakkar_workers.agent.wire import Command, Heartbeat
from drakkar_workers.channel import Message

TICK_SECONDS = 0.1
REPORT_WAIT_LIMIT = 60.0
POLL_RECENT_SECONDS = 60.0
"""An operator that asked within this time is worth waiting for at the end."""

log = logging.getLogger(__name__)


class _News:
    """Wakes all that wait, whenever ``tell`` is called."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout: float) -> None:
        try:
            await asyncio.wait_for(self._event.wait(), timeout)
        except TimeoutError:
            return


class Coordinator:
    """Serves one gang; call it on the event loop only."""

    def __init__(self, gang: Gang) -> None:
        self.gang = gang
        self._commands = _News()
        self._reports = _News()
        self._command_state = self._state()
        self._version = gang.version
        self._polled = float("-inf")
        self._served = -1
        """Newest version that the operator has got."""

    async def exchange(self, beat: Heartbeat) -> Command:
        """Take a heartbeat; answer as soon as there is a command that its sender does not have.

        Raises RefusedError.
        """
        self.gang.heartbeat(beat, time.monotonic())
        self._announce()
        deadline = time.monotonic() + beat.wait_seconds
        while True:
            now = time.monotonic()
            command = self.gang.command(beat.replica, beat.incarnation, now)
            if command.key != beat.seen or now >= deadline:
                return command.model_copy(update={"ledger": self.gang.ledger.state(now)})
            await self._commands.wait(deadline - now)

    async def report(self, after: int, wait: float) -> Report:
        """The report once its version is above ``after``, or the current one after ``wait`` seconds.

        A number that this coordinator has not reached is its predecessor's: answered at once.
        """
        deadline = time.monotonic() + min(max(0.0, wait), REPORT_WAIT_LIMIT)
        self._polled = time.monotonic()
        while after == self.gang.version and (now := time.monotonic()) < deadline:
            await self._reports.wait(deadline - now)
        self._polled = time.monotonic()
        return self.gang.report(self._polled)

    def served(self, version: int) -> None:
        """A report of this version has been sent."""
        self._served = max(self._served, version)

    def message(self, message: Message) -> None:
        """Take what a trainer of this pod tells."""
        self.gang.message(message, time.monotonic())
        self._announce()

    async def run(self) -> None:
        """Let the gang's time pass."""
        while True:
            self.gang.tick(time.monotonic())
            self._announce()
            await asyncio.sleep(TICK_SECONDS)

    async def see_off(self) -> None:
        """Wait until the peers know of the end, and the operator too if it asks."""
        farewell = self.gang.farewell_seconds
        deadline = time.monotonic() + farewell
        while not self.gang.over(time.monotonic()) and time.monotonic() < deadline:
            await self._reports.wait(TICK_SECONDS)
        await self.linger()

    async def linger(self) -> None:
        """Give an operator that listens the time to fetch the last report."""
        deadline = time.monotonic() + self.gang.linger_seconds
        while time.monotonic() < deadline:
            if time.monotonic() - self._polled > POLL_RECENT_SECONDS:
                return
            if self._served >= self.gang.version:
                return
            await asyncio.sleep(0.02)

    def _announce(self) -> None:
        for line in self.gang.news:
            log.info(line)
        self.gang.news.clear()
        if self._state() != self._command_state:
            self._command_state = self._state()
            self._commands.tell()
        if self.gang.version != self._version:
            self._version = self.gang.version
            self._reports.tell()

    def _state(self) -> tuple[object, ...]:
        return self.gang.phase, self.gang.epoch, self.gang.failure
