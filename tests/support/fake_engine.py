"""Replicas that misbehave as told, on real sockets, and a router before them."""

import asyncio
import contextlib
import json

import aiohttp
from aiohttp import web

from drakkar.routing import Endpoint, Revision, RouteTable, digest
from drakkar_workers.serve.router.serve import RouterSettings, routing

DEADLINE = 60.0
TOKEN = "the operator's"
WORDS = ["one", "two", "three"]


def event(**fields):
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def chunk(word):
    return event(choices=[{"index": 0, "text": word, "finish_reason": None}])


class FakeEngine:
    """Answers as ``mode`` says; ``asked`` are the bodies that came."""

    def __init__(self, mode="well"):
        self.mode = mode
        self.asked = []
        self.headers = []
        self.left = asyncio.Event()
        """A client has left early."""
        self.go = asyncio.Event()
        """Lets answers that wait go on."""
        self.running = 0
        self.most_running = 0
        self.metrics = ""

    async def __aenter__(self):
        app = web.Application()
        app.add_routes(
            [web.get("/metrics", self._metrics), web.route("*", "/{path:.*}", self._answer)]
        )
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_):
        self.go.set()
        await self._runner.cleanup()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def _metrics(self, _request):
        return web.Response(text=self.metrics)

    async def _answer(self, request):
        body = await request.read()
        self.asked.append(body)
        self.headers.append(request.headers)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._behave(request, json.loads(body or b"{}"))
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        finally:
            self.running -= 1

    async def _behave(self, request, body):
        if self.mode == "die at once":
            request.transport.abort()
            return web.Response()
        if self.mode == "hang":
            await self.go.wait()
        if isinstance(self.mode, int):
            error = {"message": "as told", "type": "t", "param": None, "code": "as_told"}
            if self.mode == 429:
                error["code"] = "rate_limit_exceeded"
            return web.json_response({"error": error}, status=self.mode)
        if not body.get("stream"):
            usage = {"prompt_tokens": 5, "completion_tokens": 3}
            return web.json_response({"choices": [{"text": " ".join(WORDS)}], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if self.mode == "headers only":
            request.transport.abort()
            return response
        await response.write(chunk(WORDS[0]))
        if isinstance(self.mode, str) and self.mode.endswith("in the midst"):
            # A connection that breaks takes with it what was not read yet.
            await self.go.wait()
        if self.mode == "die in the midst":
            await response.write(b'data: {"choi')
            request.transport.abort()
            return response
        if self.mode == "end in the midst":
            await response.write_eof()
            return response
        if self.mode == "fail in the midst":
            await response.write(event(error={"message": "engine", "code": "engine_error"}))
            await response.write_eof()
            return response
        for word in WORDS[1:]:
            await response.write(chunk(word))
        await response.write(event(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 3}))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


class World:
    """A router and its replicas, seen by a client and by the operator."""

    def __init__(self, running, session):
        self.router = running.router
        self.url = f"http://127.0.0.1:{running.port}"
        self.control = f"http://127.0.0.1:{running.control_port}"
        self.session = session
        self.version = 0

    async def table(self, *engines, revisions=None, after=-1, wait=0, uid="u", **fields):
        """Tell the router of its replicas, which are engines or (engine, changes); its answer."""
        self.version += 1
        endpoints = []
        for number, one in enumerate(engines):
            engine, changes = one if isinstance(one, tuple) else (one, {})
            plain = {"name": f"r{number}", "url": getattr(engine, "url", engine)}
            endpoints.append(Endpoint(**{**plain, "revision": "1", "ready": True, **changes}))
        weights = [Revision(name=name, weight=w) for name, w in (revisions or {}).items()]
        table = RouteTable(
            service="team/chat", uid=uid,
            **{"version": self.version, "endpoints": endpoints, "revisions": weights, **fields},
        )  # fmt: skip
        return await self.exchange(table, after=after, wait=wait)

    async def exchange(self, table, *, after=-1, wait=0, token=TOKEN):
        async with self.session.post(
            f"{self.control}/v1/exchange?after={after}&wait={wait}",
            data=table.model_dump_json(by_alias=True),
            headers={"Authorization": f"Bearer {token}"},
        ) as answer:
            return answer.status, await answer.json()

    async def ask(self, *, path="/v1/completions", headers=None, method="POST", **body):
        """Status and body of an answer."""
        data = json.dumps({"prompt": "x", **body}).encode() if method == "POST" else None
        async with self.session.request(
            method, self.url + path, data=data, headers=headers or {}
        ) as answer:
            text = await answer.text()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(text)
        return answer.status, text

    async def until(self, condition, what):
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0.005)
        assert condition(), what

    @property
    def stats(self):
        from drakkar_workers.serve.router.control import stats_of

        return stats_of(self.router)


@contextlib.asynccontextmanager
async def world(**settings):
    """A router without a table."""
    fields = {"uid": "u", "host": "127.0.0.1", "port": 0, "control_port": 0}
    fields |= {"token_digest": digest(TOKEN), **settings}
    async with (
        routing(RouterSettings(**fields)) as running,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE)) as session,
    ):
        yield World(running, session)
