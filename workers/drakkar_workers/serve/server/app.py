"""The routes, and what holds for all of them."""

import logging
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from drakkar_workers.serve.batch.routes import ROOT
from drakkar_workers.serve.batch.routes import routes as batch_routes
from drakkar_workers.serve.server import operations
from drakkar_workers.serve.server.chat import chat
from drakkar_workers.serve.server.completions import completions
from drakkar_workers.serve.server.embeddings import embeddings
from drakkar_workers.serve.server.errors import ApiError, broken
from drakkar_workers.serve.server.responses import responses
from drakkar_workers.serve.server.service import CLIENT, SERVICE, Service
from drakkar_workers.serve.tracing import traced

BODY_LIMIT_BYTES = 16 << 20
OPEN_PATHS = {"/health", "/ready", "/livez", "/metrics", "/version"}
"""Answered without a key."""

logger = logging.getLogger(__name__)


def application(service: Service, files: Path | None = None) -> web.Application:
    """The server of a model; ``files`` is the folder of files and batches."""
    app = web.Application(client_max_size=BODY_LIMIT_BYTES, middlewares=[traced, _errors, _keys])
    app[SERVICE] = service
    if files is not None:
        app[ROOT] = files
    app.add_routes(batch_routes())
    app.add_routes(
        [
            web.post("/v1/chat/completions", chat),
            web.post("/v1/completions", completions),
            web.post("/v1/responses", responses),
            web.post("/v1/embeddings", embeddings),
            web.get("/v1/models", operations.models),
            web.get("/v1/models/{model:.+}", operations.models),
            web.post("/v1/load_lora_adapter", operations.load_adapter),
            web.post("/v1/unload_lora_adapter", operations.unload_adapter),
            web.post("/tokenize", operations.tokenize),
            web.post("/detokenize", operations.detokenize),
            web.get("/health", operations.health),
            web.get("/ready", operations.health),
            web.get("/livez", operations.live),
            web.get("/metrics", operations.metrics),
            web.get("/version", operations.version),
        ]
    )
    return app


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in OpenAI's shape."""
    service = request.app[SERVICE]
    try:
        return await handler(request)
    except ApiError as error:
        if request.path not in OPEN_PATHS:
            service.metrics.refused(error.status)
        return error.response()
    except web.HTTPException as error:
        service.metrics.refused(error.status)
        text = {
            404: f"there is no {request.path[:128]}",
            405: f"{request.method} is not allowed on {request.path[:128]}",
            413: f"the body is larger than {BODY_LIMIT_BYTES} bytes",
        }
        return ApiError(text.get(error.status, error.reason), status=error.status).response()
    except UnicodeError:
        service.metrics.refused(400)
        return ApiError("the body holds characters that can't be encoded").response()
    except ConnectionError:
        raise
    except Exception:
        logger.exception("%s %s", request.method, request.path)
        service.metrics.refused(500)
        return broken("the server failed; its log says how").response()


@web.middleware
async def _keys(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Who asks; and nothing more once the server is about to end."""
    service = request.app[SERVICE]
    if request.path not in OPEN_PATHS:
        request[CLIENT] = service.clients.find(request.headers.get("Authorization"))
        with service.handling():
            return await handler(request)
    return await handler(request)
