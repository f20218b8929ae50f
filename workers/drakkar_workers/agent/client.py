"""A peer's way to the coordinator."""

from types import TracebackType
from typing import Self

import aiohttp
from pydantic import ValidationError

from drakkar_workers.agent.wire import HEARTBEAT_PATH, Command, Heartbeat

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 2.0
"""Beyond the time that the coordinator was asked to wait."""
COMMAND_LIMIT_BYTES = 64 * 1024


class UnreachableError(Exception):
    """The coordinator did not answer, or refused; the text says why."""


class Client:
    """Sends heartbeats; the coordinator's name is resolved anew for every connection."""

    def __init__(self, host: str, port: int) -> None:
        bracketed = f"[{host}]" if ":" in host else host
        self._url = f"http://{bracketed}:{port}{HEARTBEAT_PATH}"
        self._session = _session()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop all connections."""
        await self._session.close()

    async def exchange(self, beat: Heartbeat) -> Command:
        """The coordinator's answer. Raises UnreachableError."""
        timeout = aiohttp.ClientTimeout(
            total=beat.wait_seconds + ANSWER_SECONDS, sock_connect=CONNECT_SECONDS
        )
        body = beat.model_dump_json(by_alias=True, exclude_none=True)
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                text = await answer.content.read(COMMAND_LIMIT_BYTES)
                if answer.status != 200:
                    await self._forget()
                    raise UnreachableError(f"answers {answer.status}: {text[:300]!r}")
                return Command.model_validate_json(text)
        except TimeoutError:
            raise UnreachableError("does not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(str(error) or type(error).__name__) from None
        except ValidationError as error:
            await self._forget()
            raise UnreachableError(f"answers what is no command: {error.errors()[0]}") from None

    async def _forget(self) -> None:
        """Drop all connections: the address may be another's by now.

        A connection that is kept would be asked again and again, and the name never resolved.
        """
        old, self._session = self._session, _session()
        await old.close()


def _session() -> aiohttp.ClientSession:
    # A replaced pod has another address under the same name, so nothing of DNS is kept.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(use_dns_cache=False, limit=4), trust_env=False
    )
