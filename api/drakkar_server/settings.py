"""Settings of the server: command line, else environment (``DRAKKAR_`` + name), else default."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from drakkar.planning import OPERATOR_NAMESPACE, OPERATOR_SERVICE

_HELP: Final = {
    "kubeconfig": "kubeconfig file; by default the service account, $KUBECONFIG or ~/.kube/config",
    "host": "address to listen on",
    "port": "port of the API and the pages",
    "database": "SQLAlchemy URL: sqlite+aiosqlite:///PATH or postgresql+asyncpg://USER@HOST/NAME",
    "session_key_file": "file whose content seals the browsers' cookies; replicas share it. Without "
    "one a key is drawn at the start, and a restart ends all sessions",
    "insecure_cookies": "1: cookies are sent over plain HTTP too, for a server on this machine",
    "operator": "NAMESPACE/SERVICE of the operator, which plans jobs",
    "log_level": "debug, info, warning or error",
    "watch_seconds": "a watch is renewed about this often",
    "rights_seconds": "answers of the API server about who may do what count this long",
    "rights_late_seconds": "while the API server is away its last answers count this much longer, "
    "for reading",
    "requests_per_second": "requests of one user that are answered per second, in the long run",
    "streams_per_user": "streams (logs, changes) that one user may have open",
    "points_days": "points of metrics of ended jobs are thinned out after so many days",
    "history_days": "jobs that are gone are forgotten after so many days; their usage stays",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in the unit of their name."""

    kubeconfig: str | None = None
    host: str = "0.0.0.0"
    port: int = 8090
    database: str = "sqlite+aiosqlite:///drakkar.db"
    session_key_file: str | None = None
    insecure_cookies: int = 0
    operator: str = f"{OPERATOR_NAMESPACE}/{OPERATOR_SERVICE}"
    log_level: str = "info"
    watch_seconds: float = 120.0
    rights_seconds: float = 10.0
    rights_late_seconds: float = 900.0
    requests_per_second: float = 50.0
    streams_per_user: int = 100
    points_days: float = 14.0
    history_days: float = 365.0


def parse(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the command line and the environment; exits with a message if one is wrong."""
    parser = argparse.ArgumentParser(prog="python -m drakkar_server", description=__doc__)
    defaults = Settings()
    for item in fields(Settings):
        default = getattr(defaults, item.name)
        variable = f"DRAKKAR_{item.name.upper()}"
        parser.add_argument(
            f"--{item.name.replace('_', '-')}",
            type=type(default) if default is not None else str,
            # argparse applies the type to a default that is a string.
            default=environ.get(variable) or default,
            help=f"{_HELP[item.name]} [{variable}; default {default}]".replace("%", "%%"),
        )
    settings = Settings(**vars(parser.parse_args(arguments)))
    if "/" not in settings.operator:
        parser.error(f"--operator: write NAMESPACE/SERVICE (found {settings.operator!r})")
    return settings
