"""Routes to the replicas of a service: ``python -m drakkar_workers.serve.router --uid UID``.

In a cluster the operator says which replicas there are. Elsewhere they are named here:
``--replica http://host:8000``, as often as needed.
"""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from drakkar.routing import ROUTER_CONTROL_PORT, ROUTER_PORT, Endpoint, Policy, RouteTable
from drakkar_workers.errors import ConfigError
from drakkar_workers.serve.router.serve import RouterSettings, run

_DIGEST = re.compile(r"[0-9a-f]{64}")


def main(argv: Sequence[str] | None = None) -> int:
    """Route as the arguments say; an exit status."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    try:
        return run(parse(argv))
    except (ConfigError, OSError) as error:
        print(f"router: {error}", file=sys.stderr)
        return 2


def parse(argv: Sequence[str] | None = None) -> RouterSettings:
    """Settings from the command line; exits with a message if they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m drakkar_workers.serve.router", description=__doc__
    )
    add = parser.add_argument
    add("--uid", default="", help="of the InferenceService; its operator sends the replicas")
    add("--token-digest", default="", help="SHA-256 of the token that the operator shows, in "
        "hexadecimal; with --uid")  # fmt: skip
    add("--replica", action="append", default=[], help="URL of a replica, without an operator")
    add("--policy", choices=("scored", "round-robin", "least-requests"), default="scored",
        help="with --replica")  # fmt: skip
    add("--host", default=None, help="address to listen on (default: all)")
    add("--port", type=int, default=ROUTER_PORT)
    add("--control-port", type=int, default=ROUTER_CONTROL_PORT)
    add("--api-keys", type=Path, default=None, help="JSON file of keys and their limits; without "
        "it keys are passed on to the replicas")  # fmt: skip
    add("--stall", type=float, default=120.0, help="seconds until a mute stream is broken off")
    add("--drain-delay", type=float, default=5.0)
    add("--drain-timeout", type=float, default=300.0)
    found = parser.parse_args(argv)
    if bool(found.uid) == bool(found.replica):
        parser.error("give either --uid or --replica")
    if bool(found.uid) != bool(_DIGEST.fullmatch(found.token_digest)):
        parser.error("--token-digest: write the 64 hexadecimal digits of a SHA-256 beside --uid")
    return RouterSettings(
        uid=found.uid or "fixed",
        token_digest=found.token_digest or None,
        host=found.host,
        port=found.port,
        control_port=found.control_port,
        table=_fixed(parser, found.replica, Policy(kind=found.policy)) if found.replica else None,
        keys=found.api_keys,
        stall=found.stall,
        drain_delay=found.drain_delay,
        drain_timeout=found.drain_timeout,
    )


def _fixed(parser: argparse.ArgumentParser, urls: list[str], policy: Policy) -> RouteTable:
    try:
        endpoints = [
            Endpoint(name=url.split("://")[-1], url=url.rstrip("/"), revision="fixed", ready=True)
            for url in urls
        ]
        return RouteTable(
            service="fixed", uid="fixed", version=0, endpoints=endpoints, policy=policy,
            hold_seconds=10,
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        parser.error(f"--replica: {first['msg']}: write http://HOST:PORT")


if __name__ == "__main__":
    sys.exit(main())
