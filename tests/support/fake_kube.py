"""An API server in memory, as much of one as the operator uses, with faults on demand.

``FakeKube`` is the state and the rules; ``MemoryRest`` speaks to it without sockets (so that tests can
travel in time), ``serve`` over HTTP. Resource versions, list pages of one snapshot, watches with
bookmarks, 410 after ``compact``, preconditions and graceful deletion behave as the real one's do.
"""

import asyncio
import copy
import itertools
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from drakkar.kube.connection import Connection
from drakkar.kube.rest import ApiError, PatchType, Rest
from drakkar_operator.render.resources import pod_requests

Object = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """What a path names: a collection, an object, or a subresource of one."""

    resource: str
    namespace: str | None = None
    name: str | None = None
    subresource: str | None = None

    @classmethod
    def parse(cls, path: str) -> "Target":
        parts = path.strip("/").split("/")
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource = f"{rest[0]}.{group}" if group else rest[0]
        return cls(resource, namespace, *rest[1:3])


@dataclass
class Fault:
    """Answers requests in the server's place. ``after`` lets the write happen first."""

    verb: str
    part: str
    error: ApiError | None = None
    times: int = 1
    after: bool = False
    delay: float = 0.0
    call: Callable[[], None] | None = None

    def hits(self, verb: str, path: str) -> bool:
        if self.times <= 0 or verb != self.verb or self.part not in path:
            return False
        self.times -= 1
        return True


def lost_connection() -> ApiError:
    return ApiError(0, "ServerDisconnectedError", "connection lost")


@dataclass
class FakeKube:
    """The state of the cluster."""

    objects: dict[tuple[str, str | None, str], Object] = field(default_factory=dict)
    log: list[tuple[int, str, str, Object]] = field(default_factory=list)
    """(version, resource, event type, object)."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    oldest: int = 0
    """Watches from before this version are refused."""
    gone_in_stream: bool = False
    """Refuse them by an ERROR event instead of the HTTP status."""
    mute: bool = False
    """Watches stay open and say nothing."""
    bookmark_seconds: float = 60.0

    def __post_init__(self) -> None:
        self._versions = itertools.count(100)
        self.version = 100
        self._changed = asyncio.Event()
        self._pages: dict[str, list[Object]] = {}
        self._cut = 0

    # Test's side ---------------------------------------------------------------------------------

    def put(self, resource: str, raw: Object) -> Object:
        """Create or replace an object as another client would."""
        meta = raw["metadata"]
        key = (resource, meta.get("namespace"), meta["name"])
        old = self.objects.get(key)
        meta.setdefault("uid", old["metadata"]["uid"] if old else str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", _now())
        meta.setdefault("generation", 1)
        return self._store(key, copy.deepcopy(raw), "MODIFIED" if old else "ADDED")

    def edit(
        self, resource: str, namespace: str | None, name: str, change: Callable[[Object], None]
    ) -> Object:
        """Change an object as another client would."""
        raw = copy.deepcopy(self.objects[resource, namespace, name])
        change(raw)
        return self._store((resource, namespace, name), raw, "MODIFIED")

    def remove(self, resource: str, namespace: str | None, name: str) -> None:
        """Delete an object at once, and what it owned."""
        raw = self.objects.pop((resource, namespace, name))
        self._event(resource, "DELETED", raw)
        uid = raw["metadata"]["uid"]
        for owned in list(self.objects):
            owners = self.objects.get(owned, {}).get("metadata", {}).get("ownerReferences") or []
            if any(owner["uid"] == uid for owner in owners):
                self.remove(*owned)

    def all(self, resource: str) -> list[Object]:
        """Objects of a resource, by name."""
        return [o for (r, _, _), o in sorted(self.objects.items(), key=str) if r == resource]

    def get(self, resource: str, name: str, namespace: str | None = "default") -> Object:
        return self.objects[resource, namespace, name]

    def compact(self) -> None:
        """Forget the history: watches and lists that go back further are refused."""
        self.oldest = self.version
        self._pages.clear()
        self.cut_watches()

    def cut_watches(self) -> None:
        """End all watches now."""
        self._cut += 1
        self._notify()

    def sent(self, verb: str, part: str = "") -> int:
        """How many requests of that kind were made."""
        return sum(v == verb and part in p for v, p in self.requests)

    # Server's side -------------------------------------------------------------------------------

    async def call(
        self, verb: str, path: str, params: Mapping[str, str], body: Any, content: str = ""
    ) -> Object:
        """Answer a request. Raises ApiError."""
        self.requests.append((verb, path))
        fault = next((f for f in self.faults if f.hits(verb, path)), None)
        if fault is not None:
            if fault.delay:
                await asyncio.sleep(fault.delay)
            if fault.call is not None:
                fault.call()
            if fault.error is not None and not fault.after:
                raise fault.error
        target = Target.parse(path)
        answer = copy.deepcopy(self._answer(verb, target, params, body, content))
        if fault is not None and fault.error is not None:
            raise fault.error
        return answer

    def _answer(
        self, verb: str, at: Target, params: Mapping[str, str], body: Any, content: str
    ) -> Object:
        if verb == "POST":
            return self._create(at, body)
        if at.name is None:
            return self._list(at, params)
        key = (at.resource, at.namespace, at.name)
        raw = self.objects.get(key)
        if raw is None:
            raise ApiError(404, "NotFound", f'{at.resource} "{at.name}" not found')
        if verb == "GET":
            return raw
        if verb == "DELETE":
            return self._delete(key, raw, body or {})
        _check_preconditions(raw, body.get("metadata") or {})
        changed = copy.deepcopy(raw)
        if verb == "PUT":
            part = {at.subresource or "spec": body.get(at.subresource or "spec")}
            changed.update(copy.deepcopy(part))
        else:
            patch = {"status": body.get("status")} if at.subresource == "status" else dict(body)
            patch.pop("metadata", None)
            _merge(changed, patch)
        if changed == raw:
            return raw
        if changed.get("spec") != raw.get("spec"):
            changed["metadata"]["generation"] = raw["metadata"].get("generation", 1) + 1
        return self._store(key, changed, "MODIFIED")

    def _create(self, at: Target, body: Object) -> Object:
        raw = copy.deepcopy(body)
        meta = raw["metadata"]
        if at.namespace:
            meta["namespace"] = at.namespace
        key = (at.resource, at.namespace, meta["name"])
        if key in self.objects:
            raise ApiError(409, "AlreadyExists", f'{at.resource} "{meta["name"]}" already exists')
        meta.update(uid=str(uuid.uuid4()), creationTimestamp=_now(), generation=1)
        if at.resource == "pods":
            raw["status"] = {"phase": "Pending"}
        return self._store(key, raw, "ADDED")

    def _delete(self, key: tuple[str, str | None, str], raw: Object, options: Object) -> Object:
        uid = (options.get("preconditions") or {}).get("uid")
        if uid not in (None, raw["metadata"]["uid"]):
            raise ApiError(409, "Conflict", "the UID in the precondition does not match")
        running = raw.get("status", {}).get("phase") == "Running"
        if key[0] == "pods" and running and options.get("gracePeriodSeconds") != 0:
            if "deletionTimestamp" in raw["metadata"]:
                return raw
            changed = copy.deepcopy(raw)
            changed["metadata"]["deletionTimestamp"] = _now()
            return self._store(key, changed, "MODIFIED")
        self.remove(*key)
        return raw

    def _list(self, at: Target, params: Mapping[str, str]) -> Object:
        limit = int(params.get("limit") or 0)
        token = params.get("continue")
        if token:
            version, _, offset = token.partition(":")
            start, name = int(offset), f"{version} {at.resource} {at.namespace}"
            if name not in self._pages:
                raise ApiError(410, "Expired", "the provided continue parameter is too old")
            items = self._pages[name]
        else:
            items = [o for o in self.all(at.resource) if _in(o, at.namespace)]
            start, version = 0, str(self.version)
            self._pages[f"{version} {at.resource} {at.namespace}"] = items
        page = items[start : start + limit] if limit else items
        meta: Object = {"resourceVersion": version}
        if start + len(page) < len(items):
            meta["continue"] = f"{version}:{start + len(page)}"
        return {"kind": "List", "metadata": meta, "items": page}

    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncGenerator[Object, None]:
        """Events of a watch. Raises ApiError."""
        self.requests.append(("WATCH", path))
        fault = next((f for f in self.faults if f.hits("WATCH", path)), None)
        if fault is not None and fault.error is not None:
            raise fault.error
        at = Target.parse(path)
        since = int(params["resourceVersion"])
        if since < self.oldest:
            gone = ApiError(410, "Expired", f"too old resource version: {since}")
            if not self.gone_in_stream:
                raise gone
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": gone.message}
            yield {"type": "ERROR", "object": status}
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + float(params.get("timeoutSeconds") or 3600)
        generation, position = self._cut, 0
        while True:
            changed = self._changed
            while not self.mute and position < len(self.log):
                version, resource, kind, raw = self.log[position]
                position += 1
                if version > since and resource == at.resource and _in(raw, at.namespace):
                    yield {"type": kind, "object": raw}
            if generation != self._cut:
                return
            if self.mute:
                await changed.wait()
                continue
            left = end - loop.time()
            if left < 0.001:
                return
            try:
                await asyncio.wait_for(changed.wait(), min(left, self.bookmark_seconds))
            except TimeoutError:
                if not self.mute and position == len(self.log):
                    meta = {"resourceVersion": str(max(since, self.version))}
                    yield {"type": "BOOKMARK", "object": {"metadata": meta}}

    def _store(self, key: tuple[str, str | None, str], raw: Object, kind: str) -> Object:
        self.objects[key] = raw
        self._event(key[0], kind, raw)
        return raw

    def _event(self, resource: str, kind: str, raw: Object) -> None:
        self.version = next(self._versions) + 1
        if kind == "DELETED":
            raw = copy.deepcopy(raw)
        raw["metadata"]["resourceVersion"] = str(self.version)
        self.log.append((self.version, resource, kind, copy.deepcopy(raw)))
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class MemoryRest(Rest):
    """A client without a network."""

    def __init__(self, kube: FakeKube) -> None:
        self.kube = kube

    async def close(self) -> None:
        pass

    async def patch(
        self,
        path: str,
        body: Any,
        kind: PatchType = "merge",
        params: Mapping[str, str] | None = None,
    ) -> Object:
        return await self.kube.call("PATCH", path, params or {}, body, kind)

    async def watch(
        self, path: str, params: Mapping[str, str], *, silence: float
    ) -> AsyncGenerator[Object, None]:
        stream = self.kube.watch(path, params)
        while True:
            try:
                event = await asyncio.wait_for(anext(stream), silence)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise ApiError(0, "SocketTimeoutError", "timed out") from None
            yield event

    async def _call(
        self,
        verb: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        await asyncio.sleep(0)
        return await self.kube.call(verb, path, params or {}, body, content_type)


class HttpServer:
    """The fake behind a real socket; ``stop`` and ``start`` as often as a test likes."""

    def __init__(self, kube: FakeKube) -> None:
        self.kube = kube
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def connection(self) -> Connection:
        return Connection(server=f"http://127.0.0.1:{self.port}")

    async def __aenter__(self) -> "HttpServer":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            self.kube.cut_watches()
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            if request.path in DISCOVERY:
                return web.json_response(DISCOVERY[request.path])
            if request.query.get("watch"):
                return await self._watch(request)
            text = await request.read()
            body = orjson.loads(text) if text else None
            answer = await self.kube.call(
                request.method, request.path, request.query, body, request.content_type
            )
            return web.Response(body=orjson.dumps(answer), content_type="application/json")
        except ApiError as error:
            if not error.status:
                request.transport and request.transport.abort()
            return _refusal(error)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        stream = self.kube.watch(
            request.path, {"resourceVersion": str(self.kube.version), **request.query}
        )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        if first.done() and isinstance(first.exception(), ApiError):
            error = first.exception()
            assert isinstance(error, ApiError)
            return _refusal(error)
        await response.prepare(request)
        try:
            while True:
                await response.write(orjson.dumps(await first) + b"\n")
                first = asyncio.ensure_future(anext(stream))
        except StopAsyncIteration:
            await response.write_eof()
        finally:
            first.cancel()
        return response


def _refusal(error: ApiError) -> web.Response:
    body = {
        "kind": "Status",
        "status": "Failure",
        "code": error.status,
        "reason": error.reason,
        "message": error.message,
    }
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return web.json_response(body, status=error.status or 500, headers=headers)


_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
DISCOVERY: dict[str, Object] = {
    "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.2"},
    "/api": {"versions": ["v1"]},
    "/apis": {
        "groups": [
            {
                "name": "drakkar.dev",
                "versions": [{"groupVersion": "drakkar.dev/v1alpha1", "version": "v1alpha1"}],
                "preferredVersion": {
                    "groupVersion": "drakkar.dev/v1alpha1",
                    "version": "v1alpha1",
                },
            }
        ]
    },
    "/api/v1": {"resources": []},
    "/apis/drakkar.dev/v1alpha1": {
        "resources": [
            {
                "name": "trainingjobs",
                "singularName": "trainingjob",
                "namespaced": True,
                "kind": "TrainingJob",
                "verbs": _VERBS,
                "shortNames": ["tj"],
            },
            {
                "name": "inferenceservices",
                "singularName": "inferenceservice",
                "namespaced": True,
                "kind": "InferenceService",
                "verbs": _VERBS,
                "shortNames": ["isvc"],
            },
        ]
    },
}


def _in(raw: Object, namespace: str | None) -> bool:
    return namespace is None or raw["metadata"].get("namespace") == namespace


def _merge(into: Object, patch: Object) -> None:
    for name, value in patch.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, dict):
            _merge(into.setdefault(name, {}), value)
        else:
            into[name] = copy.deepcopy(value)


def _check_preconditions(raw: Object, meta: Object) -> None:
    for name in ("uid", "resourceVersion"):
        if meta.get(name) not in (None, raw["metadata"][name]):
            raise ApiError(409, "Conflict", f"the object has been modified ({name})")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def node(name: str, *, cpu: str = "8", gpus: int = 8, ready: bool = True, **labels: str) -> Object:
    """A node."""
    amounts = {"cpu": cpu, "memory": "64Gi", "pods": "110", "nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
        "spec": {},
        "status": {
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def training_job(name: str, *, namespace: str = "default", **spec: Any) -> Object:
    """A job of plain pods with one GPU each, unless told otherwise."""
    return {
        "apiVersion": "drakkar.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 2,
            "runtime": "plain",
            "accelerators": {"resource": "nvidia.com/gpu", "count": 1},
            "template": {"spec": {"containers": [{"name": "trainer", "image": "any"}]}},
            **spec,
        },
    }


def inference_service(name: str, *, namespace: str = "default", **spec: Any) -> Object:
    """A service from a volume, with one GPU per replica, unless told otherwise."""
    return {
        "apiVersion": "drakkar.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"pvc": {"claimName": "models"}},
            "accelerators": {"resource": "nvidia.com/gpu", "count": 1},
            **spec,
        },
    }


JOBS = "trainingjobs.drakkar.dev"
SERVICES = "inferenceservices.drakkar.dev"
QUEUES = "queues.drakkar.dev"
TOPOLOGIES = "topologies.drakkar.dev"


class Kubelet:
    """Runs pods as kubelets would: bound pods run, deleted pods go."""

    def __init__(self, kube: FakeKube, *, ip: str = "127.0.0.1", delay: float = 0.0) -> None:
        self.kube = kube
        self.ip = ip
        self.delay = delay
        self.leave_seconds = 0.0
        """How long a deleted pod still runs."""
        self.created: list[str] = []
        """Names of all pods that ever appeared, in order."""
        self.alive: set[str] = set()
        self.doubles: list[str] = []
        """Pods that appeared while one of the same job and replica was there."""
        self.crowded: list[str] = []
        """Pods that came to a node whose devices others held still."""
        self._devices: dict[str, tuple[str, int]] = {}
        """Node and devices of each pod that holds some."""

    async def run(self) -> None:
        position = 0
        while True:
            changed = self.kube._changed
            while position < len(self.kube.log):
                _, resource, kind, raw = self.kube.log[position]
                position += 1
                if resource == "pods":
                    await self._see(kind, raw)
            if position == len(self.kube.log):
                await changed.wait()

    async def _see(self, kind: str, raw: Object) -> None:
        meta = raw["metadata"]
        self._count(kind, raw)
        if kind == "ADDED":
            self.created.append(meta["name"])
            rank = f"{meta['namespace']}/{meta['name']}"
            if rank in self.alive:
                self.doubles.append(rank)
            self.alive.add(rank)
        if kind == "DELETED":
            self.alive.discard(f"{meta['namespace']}/{meta['name']}")
            return
        if self.delay:
            await asyncio.sleep(self.delay)
        key = ("pods", meta["namespace"], meta["name"])
        current = self.kube.objects.get(key)
        if current is None or current["metadata"]["uid"] != meta["uid"]:
            return
        if "deletionTimestamp" in meta and self.leave_seconds:
            loop = asyncio.get_running_loop()
            loop.call_later(self.leave_seconds, self._gone, key, meta["uid"])
        elif "deletionTimestamp" in meta:
            self.kube.remove(*key)
        elif (current.get("status") or {}).get("phase") == "Pending" and current["spec"].get(
            "nodeName"
        ):
            self.kube.edit(*key, lambda pod: pod.update(status=running(self.ip)))

    def _gone(self, key: tuple[str, str | None, str], uid: str) -> None:
        """A deleted pod has ended, unless it was deleted by force before."""
        current = self.kube.objects.get(key)
        if current is not None and current["metadata"]["uid"] == uid:
            self.kube.remove(*key)

    def _count(self, kind: str, raw: Object) -> None:
        """Keep account of who holds devices, as the events tell it."""
        meta, node = raw["metadata"], raw["spec"].get("nodeName")
        over = (raw.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        asked = pod_requests(raw["spec"]).get("nvidia.com/gpu", 0)
        if kind == "DELETED" or over or not (node and asked):
            self._devices.pop(meta["uid"], None)
            return
        self._devices[meta["uid"]] = (node, asked)
        if kind == "ADDED" and ("nodes", None, node) in self.kube.objects:
            has = int(self.kube.get("nodes", node, None)["status"]["allocatable"]["nvidia.com/gpu"])
            if sum(count for where, count in self._devices.values() if where == node) > has:
                self.crowded.append(f"{meta['name']} on {node}")

    def end(self, namespace: str, name: str, code: int, **status: Any) -> None:
        """The pod's container ends."""
        phase = "Failed" if code else "Succeeded"
        state = {"terminated": {"exitCode": code, "message": ""}}
        self.kube.edit(
            "pods",
            namespace,
            name,
            lambda pod: pod.update(
                status={
                    "phase": phase,
                    "podIP": self.ip,
                    "containerStatuses": [{"name": "trainer", "state": state}],
                    **status,
                }
            ),
        )


def running(ip: str) -> Object:
    """Status of a pod that runs."""
    return {
        "phase": "Running",
        "podIP": ip,
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "trainer", "state": {"running": {}}, "ready": True}],
    }
