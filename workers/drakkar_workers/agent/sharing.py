"""The coordinator's part in checkpoints in memory: who keeps whose copies, who is to fetch what."""

from collections.abc import Sequence
from typing import Any

from drakkar.protocol import GangConfig
from drakkar_workers.agent import rescue
from drakkar_workers.agent.seat import Seat
from drakkar_workers.agent.wire import Fetch


class Sharing:
    """One gang's; decided anew for every epoch."""

    def __init__(self, config: GangConfig) -> None:
        self._config = config
        self._keepers: list[int | None] = [None] * config.replicas
        self._fetches: dict[int, list[Fetch]] = {}

    def begin_epoch(self, seats: Sequence[Seat]) -> None:
        """From what the agents have told they have in memory."""
        self._fetches = {}
        self._keepers = rescue.partners([seat.node for seat in seats])
        beats = {seat.replica: seat.beat for seat in seats if seat.beat is not None}
        found = rescue.plan(
            self._config.world_size,
            {replica: beat.memory for replica, beat in beats.items()},
            {replica: beat.copies for replica, beat in beats.items()},
        )
        for rank, (keeper, key) in found.items():
            host = _address(seats[keeper])
            if host is not None:
                fetch = Fetch(rank=rank, epoch=key.epoch, step=key.step, host=host)
                replica = rank // self._config.processes_per_replica
                self._fetches.setdefault(replica, []).append(fetch)

    def orders(
        self, replica: int, seats: Sequence[Seat], step_seconds: float | None
    ) -> dict[str, Any]:
        """Fields of a replica's command to start."""
        every = self._config.memory_every
        if not every:
            return {}
        keeper, each = self._keepers[replica], self._config.processes_per_replica
        took = [seat.beat.copy_seconds for seat in seats if seat.beat is not None]
        return {
            "keeps": [
                rank
                for owner, holder in enumerate(self._keepers)
                if holder == replica
                for rank in range(owner * each, (owner + 1) * each)
            ],
            "fetch": self._fetches.get(replica, []),
            "partner": _address(seats[keeper]) if keeper is not None else None,
            "partner_every": rescue.copy_every(
                every, step_seconds, max(filter(None, took), default=None)
            ),
        }


def _address(seat: Seat) -> str | None:
    return seat.beat.address if seat.beat is not None else None
