"""The operator: ``python -m drakkar_operator [--kubeconfig FILE]``."""

import asyncio
import gc
import signal
import sys

import uvloop

from drakkar.kube.connection import load_connection
from drakkar.kube.logs import set_up_logging
from drakkar_operator.app import Operator
from drakkar_operator.settings import Settings, parse


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
