"""The one place that speaks HTTP to the API server: typed errors, JSON, patches, watch streams."""

import asyncio
import copy
import socket
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Literal

import aiohttp
import orjson

from drakkar.kube.connection import Connection

Object = dict[str, Any]
"""A Kubernetes object as JSON."""

PatchType = Literal["merge", "json", "strategic", "apply"]
_PATCH_TYPES: Final[dict[PatchType, str]] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_LINE_LIMIT: Final = 16 << 20
_BUSY_SECONDS: Final = 30.0


class ApiError(Exception):
    """The API server refused a request, or could not be reached (status 0)."""

    def __init__(
        self, status: int, reason: str, message: str, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else f"{reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later: no answer, overload or a server fault."""
        return self.status in (0, 408, 429) or self.status >= 500


class StreamError(Exception):
    """A watch sent something that is not a watch event."""


class Rest:
    """A client of one API server. Close it with ``close()``.

    ``observe(verb, code, seconds)`` is called after each request, code 0 for no answer.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        timeout: float = 30.0,
        connections: int = 64,
        observe: Callable[[str, int, float], None] | None = None,
        agent: str = "drakkar-operator",
    ) -> None:
        self._connection = connection
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=10.0)
        self._observe = observe or (lambda *_: None)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=connection.ssl_context(),
                limit=connections,
                socket_factory=_socket,
                keepalive_timeout=60.0,
            ),
            # Large lists would be gzipped: on the same network that only costs both sides CPU.
            headers={"Accept-Encoding": "identity", "User-Agent": agent},
            auto_decompress=True,
        )

    def acting_as(self, token: str) -> "Rest":
        """The same connections with another bearer token. The connection must have no client
        certificate: the API server would take that for who asks."""
        assert self._connection.cert_file is None
        other = copy.copy(self)

        async def authorization() -> str:
            return f"Bearer {token}"

        other._connection = replace(self._connection, authorization=authorization)
        return other

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object:
        """Read an object or a list. Raises ApiError.

        Where the server is too busy and says when to come again, as for some seconds after its
        start, the read is repeated then, for up to half a minute.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + _BUSY_SECONDS
        while True:
            try:
                return await self._call("GET", path, params=params)
            except ApiError as error:
                wait = error.retry_after
                if error.status != 429 or wait is None or now() + wait >= deadline:
                    raise
                await asyncio.sleep(max(0.1, wait))

    async def post(
        self, path: str, body: Object, params: Mapping[str, str] | None = None
    ) -> Object:
        """Create an object; returns it as stored. Raises ApiError."""
        return await self._call("POST", path, body=body, params=params)

    async def put(self, path: str, body: Object, params: Mapping[str, str] | None = None) -> Object:
        """Replace an object; its resourceVersion, if set, must be the current one."""
        return await self._call("PUT", path, body=body, params=params)

    async def patch(
        self,
        path: str,
        body: Any,
        kind: PatchType = "merge",
        params: Mapping[str, str] | None = None,
    ) -> Object:
        """Patch an object; returns it as stored. Raises ApiError."""
        return await self._call(
            "PATCH", path, body=body, params=params, content_type=_PATCH_TYPES[kind]
        )

    async def delete(self, path: str, body: Object | None = None) -> Object:
        """Delete an object; returns it while it terminates, or a Status. Raises ApiError."""
        return await self._call("DELETE", path, body=body)

    async def lines(
        self, path: str, params: Mapping[str, str], *, silence: float | None, body: Any = None
    ) -> AsyncGenerator[bytes, None]:
        """Lines of an answer as they come, such as a pod's log; none is longer than 16 MiB.

        ``silence`` is the longest wait in seconds for the next bytes, None for any. A ``body`` is
        posted as JSON. Raises ApiError and StreamError.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=silence)
        headers = await self._headers()
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                "GET" if body is None else "POST",
                self._connection.server + path,
                params=params,
                data=None if body is None else orjson.dumps(body),
                headers=headers,
                timeout=timeout,
            ) as response:
                if response.status >= 300:
                    raise await _error(response)
                async for line in _lines(response.content):
                    yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self._connection.server, error) from error

    async def watch(
        self, path: str, params: Mapping[str, str], *, silence: float
    ) -> AsyncGenerator[Object, None]:
        """Events of a watch until the server ends it.

        ``silence`` is the longest wait in seconds for the next bytes. Raises ApiError (status 0 for
        a broken or silent connection, or the server's refusal) and StreamError.
        """
        started = time.monotonic()
        code = 0
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=silence)
        try:
            async with self._session.get(
                self._connection.server + path,
                params={**params, "watch": "1"},
                headers=await self._headers(),
                timeout=timeout,
            ) as response:
                code = response.status
                if code != 200:
                    raise await _error(response)
                async for line in _lines(response.content):
                    yield _event(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self._connection.server, error) from error
        finally:
            self._observe("WATCH", code, time.monotonic() - started)

    async def _call(
        self,
        verb: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        started = time.monotonic()
        code = 0
        try:
            headers = await self._headers()
            data = None
            if body is not None:
                data = orjson.dumps(body)
                headers["Content-Type"] = content_type
            async with self._session.request(
                verb,
                self._connection.server + path,
                params=params,
                data=data,
                headers=headers,
                timeout=self._timeout,
            ) as response:
                if response.status >= 300:
                    code = response.status
                    raise await _error(response)
                answer: Object = orjson.loads(await response.read())
                code = response.status
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
            raise _unreachable(self._connection.server, error) from error
        finally:
            self._observe(verb, code, time.monotonic() - started)

    async def _headers(self) -> dict[str, str]:
        if self._connection.authorization is None:
            return {}
        value = await self._connection.authorization()
        return {"Authorization": value} if value else {}


async def _error(response: aiohttp.ClientResponse) -> ApiError:
    text = await response.read()
    reason, message = response.reason or "", text[:512].decode(errors="replace")
    retry_after: float | None = None
    with suppress(orjson.JSONDecodeError, AttributeError):
        status = orjson.loads(text)
        reason, message = status.get("reason", reason), status.get("message", message)
    with suppress(ValueError):
        retry_after = max(0.0, float(response.headers.get("Retry-After", "")))
    return ApiError(response.status, reason, message, retry_after)


def _unreachable(server: str, error: BaseException) -> ApiError:
    what = "timed out" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return ApiError(0, type(error).__name__, f"{server}: {what}")


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    # StreamReader.readline refuses lines over 128 KiB; nodes and pods may be larger.
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
        for line in lines:
            if line:
                yield line
        if len(rest) > _LINE_LIMIT:
            raise StreamError(f"a line of more than {_LINE_LIMIT} bytes")
    if rest.strip():
        yield rest


def _event(line: bytes) -> Object:
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise StreamError(f"{error}: {line[:80]!r}") from error
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise StreamError(f"not a watch event: {line[:80]!r}")
    return event


def _socket(address: Any) -> socket.socket:
    # A peer that vanishes (cut cable, dead node) is noticed in half a minute rather than hours.
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 15),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 30_000),
    ):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock
