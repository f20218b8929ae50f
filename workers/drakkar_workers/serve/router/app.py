"""The routes of clients: what is passed on, and errors in OpenAI's shape."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from aiohttp.typedefs import Handler

from drakkar_workers.serve.router.forward import BODY_LIMIT_BYTES, Forwarder
from drakkar_workers.serve.server.errors import ApiError, broken, not_found, unavailable
from drakkar_workers.serve.server.limits import Clients
from drakkar_workers.serve.tracing import traced

ADAPTER_PATHS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
FORWARDED = ("/v1/", "/tokenize", "/detokenize")

logger = logging.getLogger(__name__)


class Router:
    """The state of the data plane beside its parts."""

    def __init__(self, forwarder: Forwarder, clients: Clients | None) -> None:
        """``clients``: who may ask; None: the engines know."""
        self.forwarder = forwarder
        self.clients = clients
        self.draining = False
        self.closed = False
        """Nothing more is taken."""
        self.idle = asyncio.Event()
        self.idle.set()
        self._handlers = 0

    @contextmanager
    def handling(self) -> Iterator[None]:
        """A request is here. Raises ApiError if nothing more is taken."""
        if self.closed:
            raise unavailable("the router is being drained")
        self._handlers += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._handlers -= 1
            if not self._handlers:
                self.idle.set()

    def refuse_unless_ready(self) -> None:
        """Raises ApiError: a router is ready once it has a table, until it drains."""
        if self.draining:
            raise unavailable("the router is being drained")
        if self.forwarder.fleet.table is None:
            raise unavailable("the operator has not sent the table of replicas")


ROUTER: web.AppKey[Router] = web.AppKey("router", Router)


def application(router: Router) -> web.Application:
    """What clients reach."""
    app = web.Application(client_max_size=BODY_LIMIT_BYTES, middlewares=[traced, errors])
    app[ROUTER] = router
    app.add_routes(
        [
            web.get("/health", health),
            web.get("/livez", live),
            web.route("*", "/{path:.*}", _forward),
        ]
    )
    return app


async def health(request: web.Request) -> web.Response:
    """Ready."""
    request.app[ROUTER].refuse_unless_ready()
    return web.Response(text="ok\n")


async def live(_request: web.Request) -> web.Response:
    """The loop runs."""
    return web.Response(text="ok\n")


async def _forward(request: web.Request) -> web.StreamResponse:
    router = request.app[ROUTER]
    if request.path in ADAPTER_PATHS:
        raise ApiError(
            "adapters are loaded into all replicas: name them in the InferenceService", status=403
        )
    steps = request.path.split("/")[1:]
    # What an engine might read as another path is none of the router's.
    if not request.path.startswith(FORWARDED) or {"", ".", ".."} & set(steps):
        raise not_found(f"there is no {request.path[:128]}", "not_found")
    if router.clients is not None:
        router.clients.find(request.headers.get("Authorization")).admit(0)
    with router.handling():
        return await router.forwarder.answer(request)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in OpenAI's shape."""
    refused = request.app[ROUTER].forwarder.record.refused
    try:
        return await handler(request)
    except ApiError as error:
        refused[error.code or error.kind] += 1
        return error.response()
    except web.HTTPException as error:
        text = {413: f"the body is larger than {BODY_LIMIT_BYTES} bytes"}
        refused[str(error.status)] += 1
        return ApiError(text.get(error.status, error.reason), status=error.status).response()
    except ConnectionError:
        raise
    except Exception:
        logger.exception("%s %s", request.method, request.path)
        refused["internal"] += 1
        return broken("the router failed; its log says how").response()
