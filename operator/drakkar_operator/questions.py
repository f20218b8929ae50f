"""Questions of users to the leader over HTTP: ``POST /plan`` and ``GET /snapshot``.

Each has a port of its own, so that Kubernetes RBAC, which guards the way through the API server's
proxy, can grant the one without the other. A replica that does not lead hands the question to the
one that does. Refusals are answered as the API server answers them (meta/v1 Status).
"""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import orjson
import structlog
from aiohttp import web
from pydantic import ValidationError

from drakkar.kube.rest import ApiError
from drakkar.planning import REFUSAL, PlanRequest
from drakkar_operator.cluster.caches import Caches
from drakkar_operator.cluster.jobs import explain
from drakkar_operator.cluster.leader import Leader
from drakkar_operator.planner import NotAJobError, Planner
from drakkar_operator.scheduler import Cycle, Scheduler
from drakkar_operator.scheduling.replay import dump

FORWARDED = "X-Drakkar-Forwarded"
"""Set on what a replica hands on, so that it is handed on once only."""
FORWARD_SECONDS = 20.0
MOST_BYTES = 8 << 20
log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class QuestionError(Exception):
    """Answered with an HTTP status and a sentence for the user."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def plan_application(planner: Planner, forward: "Forward") -> web.Application:
    """``POST /plan``: a PlanRequest, answered by a PlanAnswer."""

    async def plan(request: web.Request) -> web.StreamResponse:
        try:
            asked = PlanRequest.model_validate_json(await request.read())
        except ValidationError as error:
            raise QuestionError(400, explain(error, "plan")) from None
        try:
            answer = await planner.plan(asked.jobs)
        except NotAJobError as error:
            raise QuestionError(400, str(error)) from None
        return _json(answer.wire())

    return _application(forward, web.post("/plan", plan))


def debug_application(scheduler: Scheduler, forward: "Forward") -> web.Application:
    """``GET /snapshot``: what a cycle would decide on now, and what it would decide.

    With ``?job=NAMESPACE/NAME``: the newest cycle that placed this job or judged it.
    """

    async def snapshot(request: web.Request) -> web.StreamResponse:
        job = request.query.get("job")
        cycle = _now(scheduler) if job is None else _that_judged(scheduler, job)
        # Plain data that nobody changes: writing it down need not hold up the loop.
        body = await asyncio.to_thread(lambda: orjson.dumps(dump(cycle.case, cycle.decisions)))
        return web.Response(body=body, content_type="application/json")

    return _application(forward, web.get("/snapshot", snapshot))


def _now(scheduler: Scheduler) -> Cycle:
    case = scheduler.case()
    return Cycle(case, tuple(case.decide()))


def _that_judged(scheduler: Scheduler, job: str) -> Cycle:
    """Of the kept cycles the newest that placed the job, else the newest that judged it."""
    judged = [
        (decision.placed is not None, at, cycle)
        for at, cycle in enumerate(scheduler.cycles)
        for decision in cycle.decisions
        if "/".join(decision.key) == job
    ]
    if not judged:
        raise QuestionError(
            404,
            f"none of the last {len(scheduler.cycles)} cycles that this operator keeps judged "
            f"{job}; without a job the snapshot is of now",
        )
    return max(judged, key=lambda found: found[:2])[2]


class Forward:
    """Where the leader is, and how to ask it."""

    def __init__(self, leader: Leader, caches: Caches, *, namespace: str, port: int) -> None:
        self._leader = leader
        self._caches = caches
        self._namespace = namespace
        self._port = port

    @property
    def needed(self) -> bool:
        """Whether another process must answer."""
        return not self._leader.leading

    async def ask(self, request: web.Request) -> web.Response:
        """The leader's answer. Raises QuestionError if there is no leader to be found."""
        holder = self._leader.holder
        pod = self._caches.pods.items.get(f"{self._namespace}/{holder}") if holder else None
        if FORWARDED in request.headers or pod is None or pod.ip is None or not self._port:
            raise QuestionError(503, "no operator leads just now: ask again in a few seconds")
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        url = f"http://{host}:{self._port}{request.rel_url}"
        timeout = aiohttp.ClientTimeout(total=FORWARD_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(
                    request.method,
                    url,
                    data=await request.read(),
                    headers={FORWARDED: "1", "Content-Type": request.content_type},
                ) as answer,
            ):
                return web.Response(
                    body=await answer.read(),
                    status=answer.status,
                    content_type=answer.content_type,
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise QuestionError(503, f"the leader {holder} does not answer: {why}") from error


def _application(forward: Forward, route: web.RouteDef) -> web.Application:
    @web.middleware
    async def to_the_leader(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await (forward.ask(request) if forward.needed else handler(request))
        except QuestionError as error:
            return _status(error.code, str(error))
        except ApiError as error:
            return _status(502, f"the operator's own question failed: {error}")
        except web.HTTPException as error:
            return _status(error.status, f"{request.method} {request.path}: {error.reason}")
        except Exception:
            log.exception("question crashed", path=request.path)
            return _status(500, "the operator failed to answer; its log says why")

    app = web.Application(client_max_size=MOST_BYTES, middlewares=[to_the_leader])
    app.add_routes([route])
    return app


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def _status(code: int, message: str) -> web.Response:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": REFUSAL,
        "message": message,
        "code": code,
    }
    return _json(body, code)
