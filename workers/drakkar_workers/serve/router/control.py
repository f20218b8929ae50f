"""What the operator, the kubelet and Prometheus ask a router."""

import hmac

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import ValidationError

from drakkar.routing import EXCHANGE_PATH, MAX_WAIT_SECONDS, RouterStats, RouteTable, digest
from drakkar_workers.serve.router.app import ROUTER, Router, errors, health, live
from drakkar_workers.serve.router.fleet import TableError
from drakkar_workers.serve.router.metrics import RouterCollector
from drakkar_workers.serve.server.errors import ApiError

TABLE_LIMIT_BYTES = 8 << 20


TOKEN_DIGEST: web.AppKey[str] = web.AppKey("token_digest", str)


def control_application(router: Router, token_digest: str | None) -> web.Application:
    """What only the cluster reaches; who holds the token of this digest says where requests go."""
    app = web.Application(client_max_size=TABLE_LIMIT_BYTES, middlewares=[errors])
    app[ROUTER] = router
    app[TOKEN_DIGEST] = token_digest or ""
    registry = CollectorRegistry()
    registry.register(RouterCollector(lambda: stats_of(router)))

    async def metrics(_request: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE_LATEST}
        return web.Response(body=generate_latest(registry), headers=headers)

    app.add_routes(
        [
            web.post(EXCHANGE_PATH, _exchange),
            web.get("/health", health),
            web.get("/livez", live),
            web.get("/metrics", metrics),
        ]
    )
    return app


async def _exchange(request: web.Request) -> web.Response:
    router = request.app[ROUTER]
    _refuse_strangers(request)
    after, wait = _number(request, "after", -1), _number(request, "wait", 0)
    try:
        table = RouteTable.model_validate_json(await request.read())
        router.forwarder.fleet.apply(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise ApiError(f"table: {place}: {first['msg']}", param=place) from None
    except TableError as error:
        raise ApiError(str(error), status=409, code="other_service") from None
    record = router.forwarder.record
    # The operator has something to say to this poll's predecessor.
    record.supersede()
    await record.news(int(after), min(max(0.0, wait), MAX_WAIT_SECONDS))
    return web.Response(
        text=stats_of(router).model_dump_json(by_alias=True, exclude_none=True),
        content_type="application/json",
    )


def _refuse_strangers(request: web.Request) -> None:
    said = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(digest(said), request.app[TOKEN_DIGEST]):
        raise ApiError("the operator's token is wrong or missing", status=401, code="invalid_token")


def stats_of(router: Router) -> RouterStats:
    """The router at this moment."""
    forwarder = router.forwarder
    fleet, record = forwarder.fleet, forwarder.record
    return RouterStats(
        uid=fleet.uid,
        instance=record.instance,
        version=record.version,
        table_version=None if fleet.table is None else fleet.table.version,
        draining=router.draining,
        in_flight=fleet.in_flight,
        held=forwarder.gate.held,
        samples=record.load.samples(),
        revisions=record.revisions(),
        endpoints=fleet.stats(),
        refused=dict(record.refused),
        retries=record.retries,
    )


def _number(request: web.Request, name: str, default: float) -> float:
    text = request.query.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        raise ApiError(f"{name}: {text!r} is no number", param=name) from None
    if not -1 <= value < 1e15:
        raise ApiError(f"{name}: {text!r} is out of range", param=name)
    return value
