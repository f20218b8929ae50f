"""Turns of clients by the tokens they were served (Virtual Token Counter, Sheng et al., OSDI 2024)."""

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

INPUT_WEIGHT = 1.0
OUTPUT_WEIGHT = 2.0
"""What a token costs, as in the paper."""
REMEMBERED = 10_000
"""Clients without requests whose counters are kept."""

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Queues of clients; who was served least is next, and within a client who came first."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Item]] = {}
        self._served: dict[str, float] = {}
        self._latest = 0.0
        """Counter of the client that was served last."""

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def __iter__(self) -> Iterator[Item]:
        """All items; the order means nothing."""
        for queue in self._queues.values():
            yield from queue

    def push(self, client: str, item: Item) -> None:
        """Wait. A client that had nothing waiting earns nothing for the time it was away."""
        if client not in self._queues:
            others = [self._served[name] for name in self._queues]
            floor = min(others, default=self._latest)
            self._served[client] = max(self._served.get(client, 0.0), floor)
            self._queues[client] = deque()
        self._queues[client].append(item)

    def next(self) -> tuple[str, Item] | None:
        """Whose turn it is; it stays in its queue."""
        if not self._queues:
            return None
        client = min(self._queues, key=lambda name: self._served[name])
        return client, self._queues[client][0]

    def remove(self, client: str, item: Item) -> None:
        """It waits no more; a no-op if it did not."""
        queue = self._queues.get(client)
        if queue is None or item not in queue:
            return
        queue.remove(item)
        if not queue:
            del self._queues[client]
            self._latest = max(self._latest, self._served[client])

    def charge(self, client: str, *, prompt: float = 0, generated: float = 0) -> None:
        """Tokens that a client was served."""
        cost = INPUT_WEIGHT * prompt + OUTPUT_WEIGHT * generated
        self._served[client] = self._served.get(client, 0.0) + cost
        self._forget()

    def _forget(self) -> None:
        if len(self._served) <= 2 * REMEMBERED:
            return
        idle = [name for name in self._served if name not in self._queues]
        # The least served lose least: they start from the floor again.
        for name in sorted(idle, key=lambda name: self._served[name])[: len(idle) - REMEMBERED]:
            del self._served[name]
