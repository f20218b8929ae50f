"""Sends the checkpoints in memory that a peer should have, one after the other, in the background."""

import asyncio
import logging
import time
from collections.abc import Callable

from drakkar_workers.agent.client import UnreachableError
from drakkar_workers.agent.courier import Courier
from drakkar_workers.agent.vault import Vault
from drakkar_workers.agent.wire import Command
from drakkar_workers.memory.arena import Arena, Key, Record

LOOK_SECONDS = 0.1
RETRY_SECONDS = 1.0
COMPLAIN_SECONDS = 60.0

log = logging.getLogger(__name__)


class Backup:
    """One agent's; ``run`` goes on for ever."""

    def __init__(
        self, vault: Vault, courier: Courier, command: Callable[[], Command | None]
    ) -> None:
        self._vault = vault
        self._courier = courier
        self._command = command
        self._sent: dict[tuple[str, int], Key] = {}
        self._complained = float("-inf")
        self.seconds: float | None = None
        """That the newest round over the own ranks took."""
        self.bytes_sent = 0

    async def run(self) -> None:
        """Look for something to send, again and again."""
        while True:
            try:
                await self._round()
            except UnreachableError as error:
                self._complain(error)
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    async def _round(self) -> None:
        command = self._command()
        if command is None or command.action != "start" or command.partner is None:
            return
        self._vault.copy_every(command.partner_every)
        begin, any_sent = time.monotonic(), False
        for rank, arena in self._vault.own.items():
            record = newest_for_peer(arena, command.partner_every)
            last = self._sent.get((command.partner, rank))
            if record is None or (last is not None and record.key <= last):
                continue
            await self._courier.send(command.partner, rank, arena, record)
            self._sent = {k: v for k, v in self._sent.items() if k[0] == command.partner}
            self._sent[command.partner, rank] = record.key
            self.bytes_sent += record.head_size + (0 if record.shared else record.body_size)
            any_sent = True
        if any_sent:
            self.seconds = time.monotonic() - begin

    def _complain(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._complained >= COMPLAIN_SECONDS:
            self._complained = now
            log.warning("a copy of the checkpoint in memory did not reach its keeper: %s", error)


def newest_for_peer(arena: Arena, every: int) -> Record | None:
    """The newest checkpoint of a step that goes to a peer."""
    if every <= 0:
        return None
    return next((record for record in arena.records() if record.key.step % every == 0), None)
