"""The daemon of a node: ``python -m drakkar_gpu --config FILE --node NAME``.

``python -m drakkar_gpu list|links|faults|metrics`` shows what it would find there.
"""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

import structlog

from drakkar_gpu import inspect
from drakkar_gpu.cluster import Api, ApiError
from drakkar_gpu.daemon import Daemon, Place, vendors
from drakkar_gpu.devices.base import VendorError
from drakkar_gpu.settings import Settings, SettingsError, load

READY_FILE = Path("/tmp/ready")
"""There while the daemon is ready: a probe needs no port and no Python for it."""


def arguments(argv: list[str]) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="drakkar_gpu", description="Accelerators of a node.")
    parser.add_argument("--config", type=Path, required=True, help="file of settings (YAML)")
    parser.add_argument("--node", required=True, help="name of the node this runs on")
    parser.add_argument(
        "--metrics-port", type=int, default=0, help="port of /metrics for Prometheus; 0: none"
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning"])
    return parser.parse_args(argv)


async def run(settings: Settings, place: Place, *, metrics_port: int = 0) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    found = vendors(settings, place)
    structlog.get_logger(__name__).info("vendors", found=[vendor.name for vendor in found])
    api = Api.in_cluster()
    daemon = Daemon(settings, place, found, api, metrics_port=metrics_port)
    working = asyncio.create_task(daemon.run())
    beacon = asyncio.create_task(_beacon(daemon))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, beacon, stopped):
            task.cancel()
        (result, *_) = await asyncio.gather(working, beacon, stopped, return_exceptions=True)
        await api.close()
    if isinstance(result, Exception):
        raise result


async def _beacon(daemon: Daemon) -> None:
    """Show by a file whether the daemon is ready."""
    while True:
        if daemon.ready:
            READY_FILE.touch()
        else:
            READY_FILE.unlink(missing_ok=True)
        await asyncio.sleep(0.5)


def set_up_logging(level: str) -> None:
    """JSON lines on standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def main() -> None:
    """Entry point."""
    if sys.argv[1:2] and sys.argv[1] in inspect.COMMANDS:
        sys.exit(inspect.main(sys.argv[1:]))
    given = arguments(sys.argv[1:])
    set_up_logging(given.log_level)
    try:
        settings = load(given.config)
        place = Place(given.node)
        asyncio.run(run(settings, place, metrics_port=given.metrics_port))
    except (SettingsError, ApiError, VendorError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
