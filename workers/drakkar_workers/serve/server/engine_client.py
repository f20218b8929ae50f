"""The server's side of the engine: starts its process, sends requests, hands out what comes back."""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncGenerator

import msgspec

from drakkar_workers.serve.engine import wire
from drakkar_workers.serve.engine.build import EngineSettings
from drakkar_workers.serve.engine.engine import Stats
from drakkar_workers.serve.engine.request import Output, Request
from drakkar_workers.serve.server.errors import ApiError, broken, too_many, unavailable

SILENCE_SECONDS = 30.0
"""An engine that says nothing for so long is taken for dead: it speaks at every step, and every
second when idle, and no step takes as long."""


class EngineClient:
    """One engine process. ``start`` returns once the model is loaded."""

    def __init__(self, settings: EngineSettings, *, silence: float = SILENCE_SECONDS) -> None:
        self.settings = settings
        self._silence = silence
        self.ready: wire.Ready | None = None
        self.stats: Stats | None = None
        self.failure: str | None = None
        """Why the engine is dead, once it is."""
        self._queues: dict[str, asyncio.Queue[Output | ApiError]] = {}
        self._calls: dict[int, asyncio.Future[str]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._heard = time.monotonic()
        self._started: asyncio.Event = asyncio.Event()
        self.died: asyncio.Event = asyncio.Event()

    async def start(self) -> None:
        """Start the process and begin to load. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "drakkar_workers.serve.engine.process"]
            self._process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                msgspec.json.encode(self.settings).decode(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=1 << 26)
        self._task = asyncio.create_task(self._listen(reader))

    async def loaded(self) -> wire.Ready:
        """Wait for the model. Raises ApiError with the reason if it can't be loaded."""
        await self._started.wait()
        if self.ready is None:
            raise unavailable(self.failure or "the engine did not start")
        return self.ready

    @property
    def alive(self) -> bool:
        """Whether the engine's own loop runs: it was heard lately and has not failed."""
        lately = time.monotonic() - self._heard < self._silence
        return self.ready is not None and self.failure is None and lately

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._queues)

    async def generate(self, request: Request) -> AsyncGenerator[Output]:
        """What the engine adds to a request, until it ends; leaving early drops the request.

        Raises ApiError if it is refused or the engine dies.
        """
        if not self.alive:
            raise unavailable(self.failure or "the engine is not ready")
        queue: asyncio.Queue[Output | ApiError] = asyncio.Queue()
        self._queues[request.id] = queue
        ended = False
        try:
            await self._send(wire.Add(request))
            while not ended:
                item = await queue.get()
                if isinstance(item, ApiError):
                    ended = True
                    raise item
                if item.finish == "error":
                    ended = True
                    raise ApiError(item.error, param="response_format", code="grammar_error")
                ended = item.finish is not None
                yield item
        finally:
            del self._queues[request.id]
            if not ended and self.failure is None:
                self._post(wire.Abort([request.id]))

    async def adapter(self, name: str, folder: str | None) -> None:
        """Load an adapter, or unload it. Raises ApiError."""
        if not self.alive:
            raise unavailable(self.failure or "the engine is not ready")
        call = len(self._calls) + int(time.monotonic_ns() & 0xFFFFFF) * 1000
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._calls[call] = future
        try:
            await self._send(wire.Adapter(call, name, folder))
            error = await future
        finally:
            del self._calls[call]
        if error:
            raise ApiError(error, param="lora_name", code="adapter_error")

    async def close(self) -> None:
        """End the process, whatever it does."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._writer is not None:
            self._writer.close()
        if self._process is not None and self._process.returncode is None:
            try:
                await asyncio.wait_for(self._process.wait(), 5.0)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    @property
    def process_id(self) -> int | None:
        """Of the engine's process."""
        return self._process.pid if self._process else None

    async def _send(self, command: wire.Command) -> None:
        self._post(command)
        assert self._writer is not None
        with contextlib.suppress(ConnectionError):  # the listener tells everyone
            await self._writer.drain()

    def _post(self, command: wire.Command) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(wire.pack(command))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                (length,) = wire.HEADER.unpack(await reader.readexactly(wire.HEADER.size))
                self._take(wire.event_decoder.decode(await reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        status = await self._process.wait() if self._process else None
        self._fail(self.failure or f"the engine's process ended with status {status}")

    def _take(self, event: wire.Event) -> None:
        self._heard = time.monotonic()
        match event:
            case wire.Step(outputs, stats):
                self.stats = stats
                for output in outputs:
                    queue = self._queues.get(output.id)
                    if queue is not None:
                        queue.put_nowait(output)
            case wire.Refused(name, full, message):
                queue = self._queues.get(name)
                if queue is not None:
                    error = too_many(message, "queue_full", 1) if full else ApiError(message)
                    queue.put_nowait(error)
            case wire.Answer(call, text):
                future = self._calls.get(call)
                if future is not None and not future.done():
                    future.set_result(text)
            case wire.Ready():
                self.ready = event
                self._started.set()
            case wire.Failed(message):
                self.failure = message

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self._started.set()
        self.died.set()
        for queue in self._queues.values():
            queue.put_nowait(broken(reason))
        for future in self._calls.values():
            if not future.done():
                future.set_result(reason)
