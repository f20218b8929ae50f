"""The engine's process: steps as long as there is work, and listens in between.

It has a process of its own because the model's steps hold the interpreter for milliseconds, in
which a server could not read, write or answer a probe.
"""

import contextlib
import logging
import os
import select
import signal
import sys
import time
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket

import msgspec

from drakkar_workers.errors import ConfigError
from drakkar_workers.serve.engine import wire
from drakkar_workers.serve.engine.build import EngineSettings, build
from drakkar_workers.serve.engine.engine import Engine
from drakkar_workers.serve.engine.scheduler import QueueFullError

BEAT_SECONDS = 1.0
"""How often an idle engine says that it lives."""
GRAMMAR_WAIT = 0.002

logger = logging.getLogger(__name__)


def main(descriptor: int, settings: EngineSettings) -> int:
    """Load, then serve the socket until its peer has gone. An exit status."""
    # The server decides when to stop: a signal to the group must not end running requests.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = socket(AF_UNIX, SOCK_STREAM, fileno=descriptor)
    started = time.monotonic()
    try:
        engine = build(settings)
    except (ConfigError, MemoryError, OSError) as error:
        connection.sendall(wire.pack(wire.Failed(str(error) or type(error).__name__)))
        return 1
    backend = engine.runner.decoder.backend
    ready = wire.Ready(
        max_length=engine.max_length,
        vocab=engine.runner.decoder.config.vocab,
        blocks=engine.scheduler.blocks.count,
        block_size=engine.scheduler.blocks.size,
        backend=type(backend).__name__.removesuffix("Backend").lower(),
        dtype=str(backend.dtype).removeprefix("torch."),
        load_seconds=time.monotonic() - started,
    )
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        connection.sendall(wire.pack(ready))
        _loop(engine, connection)
    return 0


def _loop(engine: Engine, connection: socket) -> None:
    inbox = wire.Inbox(connection)
    while not inbox.closed:
        wait = BEAT_SECONDS if engine.idle else GRAMMAR_WAIT if engine.compiling else 0.0
        if select.select([connection], [], [], wait)[0]:
            for command in inbox.read():
                _obey(engine, connection, command)
        outputs = engine.step()
        connection.sendall(wire.pack(wire.Step(outputs, engine.stats())))


def _obey(engine: Engine, connection: socket, command: wire.Command) -> None:
    match command:
        case wire.Add(request):
            try:
                engine.add(request)
            except (QueueFullError, ValueError) as error:
                full = isinstance(error, QueueFullError)
                connection.sendall(wire.pack(wire.Refused(request.id, full, str(error))))
        case wire.Abort(ids):
            for name in ids:
                engine.abort(name)
        case wire.Adapter(call, name, folder):
            try:
                if folder is None:
                    engine.unload_adapter(name)
                else:
                    engine.load_adapter(name, Path(folder))
                error_text = ""
            except ConfigError as error:
                error_text = str(error)
            connection.sendall(wire.pack(wire.Answer(call, error_text)))


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.INFO)
    chosen = msgspec.json.decode(sys.argv[2], type=EngineSettings)
    # Not sys.exit: threads of grammars that still compile must not hold the process.
    status = main(int(sys.argv[1]), chosen)
    sys.stderr.flush()
    os._exit(status)
