"""The server: ``python -m drakkar_server [--kubeconfig FILE] [--database URL]``."""

import sys

import structlog
import uvicorn

from drakkar.kube.logs import set_up_logging
from drakkar_server.app import create_app
from drakkar_server.settings import parse


def main() -> None:
    """Entry point."""
    settings = parse(sys.argv[1:])
    set_up_logging(settings.log_level)
    structlog.get_logger(__name__).info("listening", host=settings.host, port=settings.port)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
        # Open streams end with the server, not the other way round.
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
