"""Puts the server together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from drakkar.kube.connection import Connection, load_connection
from drakkar.kube.rest import ApiError, Rest
from drakkar_server import health, problems
from drakkar_server.auth import router as auth
from drakkar_server.auth.identity import Reviews
from drakkar_server.auth.limits import BURST_SECONDS, RateLimit, StreamLimit
from drakkar_server.auth.sessions import Sessions
from drakkar_server.cluster import router as cluster
from drakkar_server.cluster.state import Live
from drakkar_server.context import Context
from drakkar_server.history.history import History
from drakkar_server.jobs import actions, logs, past, streams
from drakkar_server.jobs import router as jobs
from drakkar_server.metrics import Metrics
from drakkar_server.protection import Protection
from drakkar_server.services import actions as service_actions
from drakkar_server.services import chat, figures
from drakkar_server.services import router as services
from drakkar_server.settings import Settings
from drakkar_server.usage import router as usage
from drakkar_server.web import cluster as web_cluster
from drakkar_server.web import jobs as web_jobs
from drakkar_server.web import services as web_services
from drakkar_server.web import session
from drakkar_server.web import settings as web_settings
from drakkar_server.web.render import HERE, error_page

AGENT = "drakkar-server"
STATIC = HERE / "static"
log = structlog.get_logger(__name__)


def create_app(settings: Settings, connection: Connection | None = None) -> FastAPI:
    """The ASGI application; it connects to the cluster when it starts."""
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        found = connection or await load_connection(settings.kubeconfig)
        rest = Rest(found, observe=metrics.observe_request, agent=AGENT)
        # Users are known by their tokens alone: no certificate and no token of ours goes along.
        nobody = replace(found, cert_file=None, key_file=None, authorization=None)
        users = Rest(nobody, observe=metrics.observe_request, agent=AGENT, connections=512)
        history = History(settings, rest, metrics)
        live = Live(
            rest,
            metrics,
            watch_seconds=settings.watch_seconds,
            on_job=history.recorder.take_job,
        )
        context = Context(
            settings=settings,
            metrics=metrics,
            rest=rest,
            users=users,
            live=live,
            history=history,
            reviews=Reviews(
                rest,
                seconds=settings.rights_seconds,
                late_seconds=settings.rights_late_seconds,
                away=lambda: live.pulse.away_since is not None,
            ),
            sessions=Sessions.from_file(settings.session_key_file),
            requests=RateLimit(
                settings.requests_per_second, settings.requests_per_second * BURST_SECONDS
            ),
            logins=RateLimit(0.2, 10),
            streams=StreamLimit(settings.streams_per_user),
        )
        app.state.context = context
        tasks = [
            asyncio.create_task(context.live.run(), name="live"),
            asyncio.create_task(history.run(context.live), name="history"),
        ]
        for task in tasks:
            task.add_done_callback(_must_not_end)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await history.close()
            await rest.close()
            await users.close()

    app = FastAPI(
        title="Drakkar",
        version="v1",
        summary="Training on Kubernetes: what runs, why not, and what was.",
        lifespan=lifespan,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses=problems.RESPONSES,
    )
    app.add_middleware(Protection, metrics=metrics, hsts=not settings.insecure_cookies)
    for kind in (problems.ProblemError, ApiError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answer)
    routers = (health, auth, actions, logs, past, streams, jobs, cluster, usage)
    serving = (service_actions, services, figures, chat)
    pages = (session, web_cluster, web_jobs, web_services, web_settings)
    for router in [module.router for module in (*routers, *serving, *pages)]:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


async def _answer(request: Request, error: Exception) -> Response:
    problem = problems.as_problem(error)
    if problem.details.status >= 500:
        log.warning("request failed", path=request.url.path, error=repr(error))
    return problems.response(problem) if problems.of_api(request) else error_page(request, problem)


def _must_not_end(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("background task crashed", task=task.get_name(), exc_info=task.exception())
