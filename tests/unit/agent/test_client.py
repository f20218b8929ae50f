"""A peer finds a coordinator that has moved, whoever has its old address by now."""

import asyncio

from drakkar_workers.agent.client import Client, UnreachableError
from drakkar_workers.agent.wire import Heartbeat

BEAT = Heartbeat(uid="u", replica=1, incarnation="i", started=0, sequence=1, pod="gpt-1", node="a")
STRANGER = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"


async def test_a_strangers_connection_is_not_kept() -> None:
    """Else the name would not be resolved again, and the stranger be asked for ever."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readline():
            writer.write(STRANGER)
            await writer.drain()
            await reader.read(65_536)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Client("127.0.0.1", port) as client:
        for _ in range(3):
            try:
                await client.exchange(BEAT)
            except UnreachableError as error:
                assert "404" in str(error)
            else:
                raise AssertionError("a stranger is no coordinator")
    server.close()
    assert connections == 3
