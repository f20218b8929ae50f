"""The real server over HTTP, before a fake API server that knows users and their rights."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from aiohttp import web
from fastapi import FastAPI

from drakkar.kube.rest import ApiError
from drakkar_server.app import create_app
from drakkar_server.settings import Settings
from support.fake_kube import FakeKube, HttpServer, Object, inference_service, training_job

ADMIN, ANN, BEN = "token-of-admin", "token-of-ann", "token-of-ben"


class RightsKube(FakeKube):
    """Knows three users: admin, who may do all, and ann and ben, each in a namespace of that name.

    ``forget`` makes a token invalid; requests with a user's token are refused where RBAC would.
    """

    def __init__(self) -> None:
        super().__init__()
        self.users = {ADMIN: "admin", ANN: "ann", BEN: "ben"}

    def forget(self, token: str) -> None:
        """The token has expired."""
        del self.users[token]

    def allows(self, user: str, attributes: Mapping[str, str]) -> bool:
        """The answer of RBAC."""
        if user == "admin":
            return True
        if attributes.get("resource") in ("queues",):
            return attributes["verb"] in ("get", "list")
        return attributes.get("namespace") == user

    async def call(
        self, verb: str, path: str, params: Mapping[str, str], body: Any, content: str = ""
    ) -> Object:
        if path.endswith("/tokenreviews"):
            self.requests.append((verb, path))
            name = self.users.get(body["spec"]["token"])
            status = {"authenticated": name is not None, "user": {"username": name or ""}}
            return {**body, "status": status}
        if path.endswith("/subjectaccessreviews"):
            self.requests.append((verb, path))
            spec = body["spec"]
            allowed = self.allows(spec["user"], spec["resourceAttributes"])
            return {**body, "status": {"allowed": allowed}}
        return await super().call(verb, path, params, body, content)


class GuardedServer(HttpServer):
    """Refuses what the bearer of a user's token may not do; requests without one are the server's.

    proxied: what pods and services answer by way of the API server, by (end of the path).
    """

    kube: RightsKube

    def __init__(self, kube: RightsKube) -> None:
        super().__init__(kube)
        self.proxied: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}

    async def _handle(self, request: Any) -> Any:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token:
            user = self.kube.users.get(token)
            parts = request.path.split("/")
            namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts else ""
            if user is None or (user != "admin" and namespace != user):
                return _refused(401 if user is None else 403)
        if "/proxy/" in request.path:
            for end, answer in self.proxied.items():
                if request.path.endswith(end):
                    return await answer(request)
            return _refused(503)
        return await super()._handle(request)


def _refused(code: int) -> Any:
    from support.fake_kube import _refusal

    reasons = {401: "Unauthorized", 403: "Forbidden", 503: "ServiceUnavailable"}
    return _refusal(ApiError(code, reasons[code], "no"))


class World:
    """The server under test and what is around it."""

    def __init__(self, kube: RightsKube, api: GuardedServer, app: FastAPI, url: str) -> None:
        self.kube = kube
        self.api = api
        self.app = app
        self.url = url
        self._clients: list[httpx.AsyncClient] = []

    def client(self, token: str | None = ADMIN) -> httpx.AsyncClient:
        """A program that asks with a token."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30)
        self._clients.append(client)
        return client

    async def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            await client.aclose()

    def job(
        self, name: str, namespace: str = "ann", status: Object | None = None, **spec: Any
    ) -> None:
        """Put a job into the cluster."""
        raw = training_job(name, namespace=namespace, **spec)
        self.kube.put("trainingjobs.drakkar.dev", {**raw, "status": status or {}})

    def service(
        self, name: str, namespace: str = "ann", status: Object | None = None, **spec: Any
    ) -> None:
        """Put a service into the cluster."""
        raw = inference_service(name, namespace=namespace, **spec)
        self.kube.put("inferenceservices.drakkar.dev", {**raw, "status": status or {}})

    async def until(self, true: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        """Wait for something."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not (found := true()):
            assert asyncio.get_running_loop().time() < deadline, f"not in time: {what}"
            await asyncio.sleep(0.01)
        return found

    async def sees(self, key: str) -> None:
        """Wait until the server has a job in its copies."""
        await self.until(lambda: key in self.app.state.context.live.jobs.items, f"{key} is seen")


@contextlib.asynccontextmanager
async def world(folder: Path, **settings: Any) -> AsyncIterator[World]:
    """A running server with an empty cluster and an empty database."""
    kube = RightsKube()
    async with GuardedServer(kube) as api:
        chosen = Settings(
            **{
                "database": f"sqlite+aiosqlite:///{folder}/history.db",
                "insecure_cookies": 1,
                "rights_seconds": 0.0,
                "requests_per_second": 10_000.0,
                **settings,
            }
        )
        app = create_app(chosen, api.connection)
        config = uvicorn.Config(
            app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            assert not serving.done(), serving.result()
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        found = World(kube, api, app, f"http://127.0.0.1:{port}")
        try:
            await found.until(lambda: not app.state.context.live.missing, "all is listed")
            await found.until(lambda: app.state.context.history.up, "the database is there")
            yield found
        finally:
            await found.close()
            server.should_exit = True
            await serving
