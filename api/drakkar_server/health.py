"""Health, readiness and metrics; open to all, and telling nothing of any user's."""

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client.exposition import choose_encoder

from drakkar_server.context import Parts

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def healthz(parts: Parts) -> PlainTextResponse:
    """Every watch shows signs of life; an API server that is away is no reason to restart."""
    if parts.live.age() > 3 * parts.settings.watch_seconds:
        return PlainTextResponse("a watch is stuck\n", 503)
    return PlainTextResponse("ok\n")


@router.get("/readyz")
async def readyz(parts: Parts) -> PlainTextResponse:
    """All that lists need has been seen once. The database may be away: pages say so."""
    if missing := parts.live.missing:
        return PlainTextResponse(f"not listed yet: {', '.join(missing)}\n", 503)
    return PlainTextResponse("ok\n")


@router.get("/metrics")
async def metrics(request: Request, parts: Parts) -> Response:
    """For Prometheus."""
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(parts.metrics.registry), headers={"Content-Type": content_type})
