"""Works on batches: takes one, sends its requests to the model beside all others, keeps the answers."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from drakkar_workers.serve.batch import lines
from drakkar_workers.serve.batch.batches import ENDED, Batch, BatchStore, Results, unfinished
from drakkar_workers.serve.batch.files import FileStore
from drakkar_workers.serve.batch.lines import Line
from drakkar_workers.serve.server.errors import ApiError, broken

PERIOD_SECONDS = 2.0
"""Between two looks for batches, and between two notes of how far one is."""
TURN_SECONDS = 60.0
"""A batch is laid aside after so long if others wait."""
LONGEST_PAUSE = 30.0
"""Before a request that the model had no room for is sent again."""
PRIORITY = 1000
"""Of a batch's requests unless they say otherwise: the last there is, whoever waits goes first."""

Execute = Callable[[str, str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Answers (client, endpoint, body). Raises ApiError."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Runner:
    """One replica's share of the work on the batches of a folder."""

    root: Path
    execute: Execute
    stopping: Callable[[], bool]
    """No request is to be begun any more."""
    concurrency: int = 16

    async def run(self) -> None:
        """Work for as long as it runs; what fails is tried again later."""
        last: dict[str, float] = {}
        ended: set[Path] = set()
        while not self.stopping():
            found = await asyncio.to_thread(unfinished, self.root, ended)
            # Who has waited longest since its last turn; the oldest first among the others.
            found.sort(key=lambda one: last.get(one[1], 0.0))
            last = {name: last.get(name, 0.0) for _, name in found}
            for client, name in found:
                try:
                    held = await self._turn(client, name, others=len(found) > 1)
                except Exception:
                    logger.exception("batch %s is tried again later", name)
                    held = False
                last[name] = time.monotonic()
                if held:
                    await asyncio.sleep(0.1)
                    break
            else:
                await asyncio.sleep(PERIOD_SECONDS)

    async def _turn(self, client: str, name: str, *, others: bool) -> bool:
        """Work on a batch unless another replica does; whether it was free."""
        store = BatchStore(FileStore(self.root, client))
        with store.holding(name) as held:
            if held and (batch := store.find(name)).status not in ENDED:
                await _Work(self, store, batch).proceed(TURN_SECONDS if others else None)
        return held


class _Work:
    """A turn of one batch."""

    def __init__(self, runner: Runner, store: BatchStore, batch: Batch) -> None:
        self._runner = runner
        self._store = store
        self._batch = batch

    async def proceed(self, seconds: float | None) -> None:
        """Bring the batch as far as it goes in so many seconds; None: to its end."""
        if self._batch.status != "finalizing" and not await self._check():
            return
        results = await asyncio.to_thread(Results, self._store.place(self._batch.id))
        if self._batch.status == "in_progress":
            await self._answer(results, seconds)
            self._note(results)
            end = "completed" if len(results.done) >= self._batch.total else self._cut()
            if end is None:
                return
            if end == "expired":
                self._give_up(results)
            self._write(replace(self._batch, status="finalizing", ends_as=end))
        await asyncio.to_thread(self._finalize, results)

    async def _check(self) -> bool:
        """Whether the input is there and, at the first time, right."""
        batch = self._batch
        total = batch.total
        errors: list[dict[str, Any]] = []
        try:
            path = self._store.files.content(batch.input_file_id)
            if batch.status == "validating":
                total, errors = await asyncio.to_thread(lines.check, path, batch.endpoint)
        except ApiError as error:
            gone = {"code": error.code, "message": error.message, "line": None}
            errors = [{**gone, "param": "input_file_id"}]
        now = int(time.time())
        if errors:
            self._write(replace(batch, status="failed", errors=errors, ended_at=now))
        elif batch.status == "validating":
            self._write(replace(batch, status="in_progress", total=total, in_progress_at=now))
        return not errors

    async def _answer(self, results: Results, seconds: float | None) -> None:
        """Send requests, so many at a time, until none is left or it is time to stop."""
        began = time.monotonic()
        left = self._left(results)
        noted = began

        def over() -> bool:
            late = seconds is not None and time.monotonic() - began > seconds
            return late or self._runner.stopping() or self._cut() is not None

        async def worker() -> None:
            nonlocal noted
            while not over() and (line := next(left, None)) is not None:
                await self._one(line, results, over)
                if time.monotonic() - noted > PERIOD_SECONDS:
                    noted = time.monotonic()
                    self._note(results)

        async with asyncio.TaskGroup() as group:
            for _ in range(self._runner.concurrency):
                group.create_task(worker())

    async def _one(self, line: Line, results: Results, over: Callable[[], bool]) -> None:
        """Answer one request; where the model is busy, again until it is time to stop."""
        client, endpoint = self._batch.client, self._batch.endpoint
        while True:
            try:
                asked = {"priority": PRIORITY, **line.body}
                status, body = 200, await self._runner.execute(client, endpoint, asked)
            except ApiError as error:
                if error.retry_after is not None:
                    if over():
                        return  # It has no line yet, so its turn comes again.
                    await asyncio.sleep(min(error.retry_after, LONGEST_PAUSE))
                    continue
                status, body = error.status, error.body()
            except Exception:
                logger.exception("line %d of %s", line.number, self._batch.id)
                status, body = 500, broken("the server failed; its log says how").body()
            break
        name = f"batch_req_{uuid.uuid4().hex}"
        answer = {"status_code": status, "request_id": body.get("id", name), "body": body}
        told = {"id": name, "custom_id": line.custom_id, "response": answer, "error": None}
        results.add("output" if status == 200 else "errors", line.custom_id, told)

    def _left(self, results: Results) -> Iterator[Line]:
        path = self._store.files.content(self._batch.input_file_id)
        for one in lines.read(path, self._batch.endpoint):
            if isinstance(one, Line) and one.custom_id not in results.done:
                yield one

    def _cut(self) -> Literal["cancelled", "expired"] | None:
        """Why the batch ends though not all is done."""
        if self._store.cancelling(self._batch.id):
            return "cancelled"
        return "expired" if time.time() > self._batch.expires_at else None

    def _give_up(self, results: Results) -> None:
        """Say of each request that has no answer why."""
        error = {"code": "batch_expired", "message": "not answered within the completion window"}
        for line in self._left(results):
            name = f"batch_req_{uuid.uuid4().hex}"
            told = {"id": name, "custom_id": line.custom_id, "response": None, "error": error}
            results.add("errors", line.custom_id, told)

    def _finalize(self, results: Results) -> None:
        """Make files of the lines. Whoever falls in between, another does the rest."""
        batch = results.adopt(self._batch, self._store.files)
        end = batch.ends_as or "completed"
        self._write(replace(batch, status=end, ended_at=int(time.time())))
        logger.info("batch %s of %s: %s", batch.id, batch.client, end)

    def _note(self, results: Results) -> None:
        done, failed = results.counts["output"], results.counts["errors"]
        self._write(replace(self._batch, completed=done, failed=failed))

    def _write(self, batch: Batch) -> None:
        self._store.write(batch)
        self._batch = batch
