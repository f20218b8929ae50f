"""gRPC over Unix sockets, without generated service classes: a service is a table of methods."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class Method:
    """One method: ``handler(request, context)`` answers with a message, or yields a stream."""

    handler: Callable[[Any, Any], Awaitable[Message] | AsyncIterator[Message]]
    request: type[Message]
    stream: bool = False


def service(name: str, methods: Mapping[str, Method]) -> grpc.GenericRpcHandler:
    """A service by its full name, such as v1beta1.DevicePlugin."""
    return grpc.method_handlers_generic_handler(
        name,
        {
            method: (
                grpc.unary_stream_rpc_method_handler
                if spec.stream
                else grpc.unary_unary_rpc_method_handler
            )(
                spec.handler,
                request_deserializer=spec.request.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
            for method, spec in methods.items()
        },
    )


async def serve(socket: Path, *services: grpc.GenericRpcHandler) -> grpc.aio.Server:
    """Serve at a socket in place of whatever was there."""
    socket.unlink(missing_ok=True)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(services)
    server.add_insecure_port(f"unix://{socket}")
    await server.start()
    return server


async def call(
    socket: Path, method: str, request: Message, response: type[Message], *, timeout: float = 5.0
) -> Any:
    """Call a method such as /v1beta1.Registration/Register once. Raises grpc.aio.AioRpcError."""
    async with grpc.aio.insecure_channel(f"unix://{socket}") as channel:
        invoke: Any = channel.unary_unary(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return await invoke(request, timeout=timeout)
