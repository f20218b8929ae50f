"""Asks engines for their figures, again and again."""

import asyncio

import aiohttp

from drakkar_workers.serve.router.figures import parse
from drakkar_workers.serve.router.fleet import Fleet, Replica

PERIOD = 0.5
TIMEOUT = 2.0
LIMIT_BYTES = 4 << 20


async def follow(fleet: Fleet, session: aiohttp.ClientSession, period: float = PERIOD) -> None:
    """Ask all replicas again and again; one that is slow or mute delays no other."""
    asked: dict[Replica, asyncio.Task[None]] = {}
    try:
        while True:
            for replica in fleet.replicas.values():
                before = asked.get(replica)
                if before is None or before.done():
                    asked[replica] = asyncio.create_task(_ask(fleet, session, replica))
            present = set(fleet.replicas.values())
            for replica in [one for one in asked if one not in present]:
                asked.pop(replica).cancel()
            await asyncio.sleep(period)
    finally:
        for task in asked.values():
            task.cancel()


async def _ask(fleet: Fleet, session: aiohttp.ClientSession, replica: Replica) -> None:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    try:
        async with session.get(
            f"{replica.endpoint.url}/metrics", timeout=timeout, allow_redirects=False
        ) as answer:
            if answer.status != 200:
                return
            body = bytearray()
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > LIMIT_BYTES:
                    return
    except (aiohttp.ClientError, TimeoutError, OSError):
        return  # The figures grow stale, and picks know it.
    fleet.heard(replica, parse(body.decode(errors="replace")))
