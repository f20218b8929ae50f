"""Entry point of every training pod: ``python -m drakkar_workers.agent [-- COMMAND...]``."""

import asyncio
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from drakkar.exitcodes import ExitCode
from drakkar.protocol import Failure
from drakkar_workers.agent import settings, termination
from drakkar_workers.agent.agent import Agent


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """The agent's exit code, see ``drakkar.exitcodes``."""
    command = list(argv[1:] if argv[:1] == ["--"] else argv)
    index = environ.get("DRAKKAR_REPLICA_INDEX", "?")
    logging.basicConfig(
        level=logging.INFO, format=f"[agent {index}] %(message)s", stream=sys.stdout
    )
    try:
        loaded = settings.load(environ, command)
    except ValueError as error:
        _fail(environ, "ConfigError", str(error), retryable=False)
        return ExitCode.CONFIG
    try:
        return asyncio.run(Agent(loaded, environ).run())
    except Exception as error:
        logging.exception("the agent failed")
        _fail(environ, "AgentError", f"{type(error).__name__}: {error}", retryable=True)
        return ExitCode.CRASHED


def _fail(environ: Mapping[str, str], reason: str, message: str, *, retryable: bool) -> None:
    logging.error("%s: %s", reason, message)
    failure = Failure(reason=reason, message=message[:1024], retryable=retryable)
    path = Path(environ.get(termination.PATH_ENV) or termination.DEFAULT_PATH)
    termination.write(path, termination.failure_message(failure))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
