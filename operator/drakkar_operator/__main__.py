"""The operator: ``python -m drakkar_operator [--kubeconfig FILE]``."""

import asyncio
import gc
import logging
import signal
import sys

import structlog
import uvloop

from drakkar.kube.connection import load_connection
from drakkar_operator.app import Operator
from drakkar_operator.settings import Settings, parse


def set_up_logging(level: str) -> None:
    """structlog for all: text for people at a terminal, JSON lines elsewhere."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    operator = Operator(settings, await load_connection(settings.kubeconfig))
    await operator.run(stop)


def main() -> None:
    """Entry point."""
    settings = parse(sys.argv[1:])
    set_up_logging(settings.log_level)
    # The caches are large and live long: looking through them for cycles again and again is waste.
    gc.set_threshold(50_000, 20, 50)
    uvloop.run(run(settings))


if __name__ == "__main__":
    main()
