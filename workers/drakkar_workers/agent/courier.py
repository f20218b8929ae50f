"""Carries checkpoints in memory between agents, over HTTP, not faster than it may."""

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
from pydantic import ValidationError

from drakkar_workers.agent.client import CONNECT_SECONDS, UnreachableError
from drakkar_workers.agent.vault import BusyError, Vault
from drakkar_workers.agent.wire import MEMORY_PATH, PARCEL_HEADER, Fetch
from drakkar_workers.memory.arena import Arena, Record
from drakkar_workers.memory.parcel import Parcel, content

BLOCK_BYTES = 1 << 20
STALL_SECONDS = 10.0
"""Without a byte for so long the other side is given up."""


class Courier:
    """One agent's."""

    def __init__(self, uid: str, port: int, bytes_per_second: float) -> None:
        self._port = port
        self._rate = bytes_per_second
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(use_dns_cache=False, limit=8),
            trust_env=False,
            headers={"Authorization": f"Bearer {uid}"},
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS
            ),
        )

    async def close(self) -> None:
        """Drop all connections."""
        await self._session.close()

    async def send(self, host: str, rank: int, arena: Arena, record: Record) -> None:
        """Give a peer a copy. Raises UnreachableError."""
        parcel = Parcel.of(record)
        headers = {
            PARCEL_HEADER: parcel.model_dump_json(by_alias=True),
            "Content-Length": str(parcel.size),
        }
        body = self._paced(arena, record, parcel)
        try:
            async with (
                asyncio.timeout(STALL_SECONDS + 4 * parcel.size / self._rate),
                self._session.put(
                    self._url(host, rank), data=body, headers=headers, allow_redirects=False
                ) as answer,
            ):
                if answer.status != 204:
                    text = await answer.content.read(300)
                    raise UnreachableError(f"answers {answer.status}: {text!r}")
        except TimeoutError:
            raise UnreachableError("does not take it in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(str(error) or type(error).__name__) from None

    async def fetch(self, wanted: Fetch, vault: Vault) -> None:
        """Take an own rank's checkpoint back. Raises UnreachableError, and OSError without room."""
        query = {"epoch": str(wanted.epoch), "step": str(wanted.step)}
        try:
            async with self._session.get(
                self._url(wanted.host, wanted.rank), params=query, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    text = await answer.content.read(300)
                    raise UnreachableError(f"answers {answer.status}: {text!r}")
                parcel = Parcel.model_validate_json(answer.headers.get(PARCEL_HEADER, ""))
                with vault.take_back(wanted.rank, parcel) as intake:
                    async for block in answer.content.iter_chunked(BLOCK_BYTES):
                        intake.take(block)
                    intake.finish()
        except TimeoutError:
            raise UnreachableError("does not send it in time") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise UnreachableError(str(error) or type(error).__name__) from None
        except (ValidationError, ValueError, BusyError) as error:
            raise UnreachableError(f"sends what is no checkpoint: {error}") from None

    def _url(self, host: str, rank: int) -> str:
        bracketed = f"[{host}]" if ":" in host else host
        return f"http://{bracketed}:{self._port}{MEMORY_PATH}/{rank}"

    async def _paced(self, arena: Arena, record: Record, parcel: Parcel) -> AsyncIterator[bytes]:
        begin, sent = time.monotonic(), 0
        for block in content(arena, record, parcel, BLOCK_BYTES):
            yield block
            sent += len(block)
            early = sent / self._rate - (time.monotonic() - begin)
            if early > 0:
                await asyncio.sleep(early)
