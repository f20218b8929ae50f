"""What every agent serves over HTTP, and the coordinator beside it."""

import hmac
import json
import math

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import ValidationError

from drakkar.protocol import REPORT_LIMIT_BYTES
from drakkar_workers.agent.admission import RefusedError
from drakkar_workers.agent.coordinator import Coordinator
from drakkar_workers.agent.vault import BusyError, Vault
from drakkar_workers.agent.wire import (
    HEARTBEAT_LIMIT_BYTES,
    HEARTBEAT_PATH,
    MEMORY_PATH,
    PARCEL_HEADER,
    REPORT_PATH,
    Heartbeat,
)
from drakkar_workers.memory.arena import Key
from drakkar_workers.memory.parcel import Parcel, content

BLOCK_BYTES = 1 << 20
POLLS_LIMIT = 16
"""Reports that may be waited for at once: one operator needs one, a handover two."""


class Server:
    """The agent's HTTP server; ``address`` is where peers have reached it, once they have."""

    def __init__(
        self,
        registry: CollectorRegistry,
        coordinator: Coordinator | None,
        replica: int,
        uid: str = "",
        vault: Vault | None = None,
    ) -> None:
        """``uid``: the job's, which whoever touches ``vault`` must name."""
        self._uid = uid
        self._vault = vault
        self._registry = registry
        self._coordinator = coordinator
        self._replica = replica
        self._polls = 0
        self._runner: web.AppRunner | None = None
        self.address: str | None = None

    async def open(self, host: str | None, port: int) -> None:
        """Listen. Raises OSError if the port is taken."""
        app = web.Application(client_max_size=HEARTBEAT_LIMIT_BYTES, middlewares=[_sentences])
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/metrics", self._metrics),
                web.post(HEARTBEAT_PATH, self._heartbeat),
                web.get(REPORT_PATH, self._report),
                web.put(MEMORY_PATH + "/{rank:[0-9]{1,7}}", self._keep),
                web.get(MEMORY_PATH + "/{rank:[0-9]{1,7}}", self._give),
            ]
        )
        # Cancelled handlers: a peer that has more to say drops the question it waits with.
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, backlog=1024, reuse_address=True)
        await site.start()

    async def close(self) -> None:
        """Stop listening and drop all connections."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _metrics(self, _request: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE_LATEST}
        return web.Response(body=generate_latest(self._registry), headers=headers)

    async def _heartbeat(self, request: web.Request) -> web.Response:
        coordinator = self._require_coordinator()
        try:
            beat = Heartbeat.model_validate_json(await request.read())
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "body"
            raise web.HTTPBadRequest(text=f"heartbeat: {place}: {first['msg']}") from None
        here = _local_address(request)
        if beat.address is None:
            beat = beat.model_copy(update={"address": _plain(request.remote)})
        self.address = self.address or here
        try:
            command = await coordinator.exchange(beat)
        except RefusedError as error:
            raise web.HTTPConflict(text=str(error)) from None
        command = command.model_copy(update={"master_address": here})
        return web.json_response(text=command.model_dump_json(by_alias=True, exclude_none=True))

    async def _report(self, request: web.Request) -> web.Response:
        coordinator = self._require_coordinator()
        after = _number(request, "after", -1)
        wait = _number(request, "wait", 0)
        if self._polls >= POLLS_LIMIT:
            raise web.HTTPTooManyRequests(text=f"{POLLS_LIMIT} reports are waited for already")
        self._polls += 1
        try:
            report = await coordinator.report(int(after), wait)
        finally:
            self._polls -= 1
        text = json.dumps(report.wire(), separators=(",", ":"))
        if len(text) > REPORT_LIMIT_BYTES:
            # Thousands of members: the operator knows the pods itself.
            brief = report.model_copy(update={"members": []})
            text = json.dumps(brief.wire(), separators=(",", ":"))
        response = web.json_response(text=text)
        await response.prepare(request)
        await response.write_eof()
        coordinator.served(report.version)
        return response

    async def _keep(self, request: web.Request) -> web.Response:
        """Take a copy of another replica's checkpoint."""
        vault = self._require_vault(request)
        try:
            parcel = Parcel.model_validate_json(request.headers.get(PARCEL_HEADER, ""))
            with vault.take_copy(int(request.match_info["rank"]), parcel) as intake:
                async for block in request.content.iter_chunked(BLOCK_BYTES):
                    intake.take(block)
                intake.finish()
        except BusyError as error:
            raise web.HTTPConflict(text=str(error)) from None
        except ValidationError as error:
            raise web.HTTPBadRequest(text=f"{PARCEL_HEADER}: {error.errors()[0]['msg']}") from None
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        except OSError as error:
            raise web.HTTPInsufficientStorage(text=str(error)) from None
        return web.Response(status=204)

    async def _give(self, request: web.Request) -> web.StreamResponse:
        """Give a copy back."""
        vault = self._require_vault(request)
        rank = int(request.match_info["rank"])
        key = Key(int(_number(request, "epoch", 0)), int(_number(request, "step", 0)))
        arena = vault.copies.get(rank)
        record = arena.find(key) if arena is not None else None
        if arena is None or record is None:
            text = f"no checkpoint of rank {rank}, step {key.step} and epoch {key.epoch} is kept"
            raise web.HTTPNotFound(text=text)
        # The copy as it is, with a body if it has one.
        parcel = Parcel.of(record).model_copy(update={"with_body": record.with_body})
        response = web.StreamResponse(
            headers={PARCEL_HEADER: parcel.model_dump_json(by_alias=True)}
        )
        response.content_length = parcel.size
        await response.prepare(request)
        for block in content(arena, record, parcel, BLOCK_BYTES):
            await response.write(block)
        await response.write_eof()
        return response

    def _require_vault(self, request: web.Request) -> Vault:
        said = request.headers.get("Authorization", "")
        if not hmac.compare_digest(said.encode(), f"Bearer {self._uid}".encode()):
            raise web.HTTPForbidden(text="the memory is this job's alone: name its uid")
        if self._vault is None:
            raise web.HTTPNotFound(text="this job keeps no checkpoints in memory")
        return self._vault

    def _require_coordinator(self) -> Coordinator:
        if self._coordinator is None:
            text = f"replica {self._replica} does not coordinate its gang; replica 0 does"
            raise web.HTTPNotFound(text=text)
        return self._coordinator


@web.middleware
async def _sentences(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refusals as JSON with a sentence."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.json_response({"message": error.text}, status=error.status)


def _number(request: web.Request, name: str, default: float) -> float:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -1 <= value < 1 << 53:
        raise web.HTTPBadRequest(text=f"{name}: {text[:64]!r} is not a number from -1 on")
    return value


def _local_address(request: web.Request) -> str | None:
    """The address of this pod at which the peer has reached it."""
    name = request.transport.get_extra_info("sockname") if request.transport else None
    return _plain(str(name[0])) if name else None


def _plain(address: str | None) -> str | None:
    """An IPv4 address without the prefix that a socket for both kinds gives it."""
    return address.removeprefix("::ffff:") if address else None
