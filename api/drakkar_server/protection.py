"""What every answer carries and every request passes: headers, size limit, metrics. Pure ASGI, so
that streams pass through untouched."""

import time
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drakkar_server.metrics import Metrics

MOST_BYTES: Final = 2 << 20
"""Largest body of a request."""
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


class Protection:
    """Outermost middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, hsts: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._headers = [*_HEADERS]
        if hsts:
            self._headers.append((b"strict-transport-security", b"max-age=31536000"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        code = 0
        streams = False
        taken = 0

        async def guarded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BYTES:
                # Of all exceptions it is this one that routes let pass while they read a body.
                raise HTTPException(413, f"The body is larger than {MOST_BYTES >> 20} MiB.")
            return message

        async def decorated(message: Message) -> None:
            nonlocal code, streams
            if message["type"] == "http.response.start":
                code = message["status"]
                headers = message["headers"] = [*message["headers"], *self._headers]
                names = {name for name, _ in headers}
                streams = (b"content-type", b"text/event-stream; charset=utf-8") in headers
                if b"cache-control" not in names:
                    headers.append((b"cache-control", b"no-store"))
            await send(message)

        try:
            await self._app(scope, guarded, decorated)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(code)).inc()
            if not streams:
                self._metrics.request_seconds.labels(route).observe(time.perf_counter() - started)
