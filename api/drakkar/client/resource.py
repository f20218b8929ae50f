"""Reading, changing and following the objects of one kind."""

import json
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar, cast

from drakkar.client.errors import ClientError, NotFoundError, UnreachableError
from drakkar.client.transport import APPLY, MERGE, Object, Transport, path_of
from drakkar.constants import GROUP, VERSION
from drakkar.v1alpha1 import KubernetesObject

T = TypeVar("T", bound=KubernetesObject)

CLI_FIELD_MANAGER: Final = "drakkar-cli"
_WATCH_SECONDS: Final = 240
_PATIENCE_SECONDS: Final = 120.0
"""How long a watch goes on trying to reach an API server that was there before."""


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[T]):
    """One change: the object as it is now, or was last if it was deleted."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: T
    raw: Object


class ResourceClient(Generic[T]):
    """The objects of one kind. Methods raise drakkar.client.ClientError."""

    def __init__(self, transport: Transport, model: type[T], namespace: str) -> None:
        self._transport = transport
        self._model = model
        self._namespace = namespace

    def get(self, name: str, namespace: str | None = None) -> T:
        """The object of that name; NotFoundError if there is none."""
        return self._model.model_validate(self.get_raw(name, namespace))

    def get_raw(self, name: str, namespace: str | None = None) -> Object:
        """The object as the API server holds it."""
        return self._request("GET", name, namespace)

    def list(self, namespace: str | None = None, *, all_namespaces: bool = False) -> list[T]:
        """All objects, by namespace and name."""
        found = self.list_raw(namespace, all_namespaces=all_namespaces)
        return [self._model.model_validate(item) for item in found["items"]]

    def list_raw(self, namespace: str | None = None, *, all_namespaces: bool = False) -> Object:
        """The list object of the API server, its items by namespace and name."""
        found = self._transport.request(
            "GET",
            self._path(None if all_namespaces else namespace or self._namespace),
            target=self._model.KIND.name,
        )
        # Items of a list carry no apiVersion and kind of their own in every API.
        for item in found.get("items", ()):
            item.setdefault("apiVersion", f"{GROUP}/{VERSION}")
            item.setdefault("kind", self._model.KIND.name)
        found["items"] = sorted(found.get("items", ()), key=_key)
        return found

    def apply(self, manifest: Object, namespace: str | None = None) -> T:
        """Create or change by server-side apply, with strict field validation."""
        name = str(manifest.get("metadata", {}).get("name", ""))
        query = {
            "fieldManager": CLI_FIELD_MANAGER,
            "force": "true",
            "fieldValidation": "Strict",
        }
        answer = self._request("PATCH", name, namespace, manifest, APPLY, query)
        return self._model.model_validate(answer)

    def patch(
        self,
        name: str,
        change: Object,
        namespace: str | None = None,
        *,
        subresource: Literal["", "status"] = "",
        dry_run: bool = False,
    ) -> T:
        """Change fields by a JSON merge patch (RFC 7386)."""
        query = {"fieldManager": CLI_FIELD_MANAGER, "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        answer = self._request(
            "PATCH", name, namespace, change, MERGE, query, subresource=subresource
        )
        return self._model.model_validate(answer)

    def delete(self, name: str, namespace: str | None = None) -> None:
        """Delete the object and, in the background, what it owns."""
        self._request("DELETE", name, namespace, {"propagationPolicy": "Background"})

    def watch(
        self,
        namespace: str | None = None,
        *,
        name: str | None = None,
        all_namespaces: bool = False,
    ) -> Iterator[WatchEvent[T]]:
        """All objects as they are (ADDED), then every change, without end.

        An API server that goes away is waited for; what was missed meanwhile comes as changes.
        """
        where = None if all_namespaces else namespace or self._namespace
        known: dict[tuple[str, str], Object] = {}
        lost_since: float | None = None
        while True:
            try:
                version = yield from self._sync(where, name, known)
                lost_since = None
                yield from self._follow(where, name, version, known)
            except UnreachableError:
                now = time.monotonic()
                lost_since = lost_since or now
                if not known or now - lost_since > _PATIENCE_SECONDS:
                    raise
                time.sleep(1.0)

    def _sync(
        self, where: str | None, name: str | None, known: dict[tuple[str, str], Object]
    ) -> Generator[WatchEvent[T], None, str]:
        """Yield how the list differs from what is known; return the list's version."""
        query = {"fieldSelector": f"metadata.name={name}"} if name else {}
        found = self._transport.request(
            "GET", self._path(where), target=self._model.KIND.name, query=query
        )
        items = {_key(item): item for item in found.get("items", ())}
        for key in [key for key in known if key not in items]:
            yield self._event("DELETED", known.pop(key))
        for key, item in sorted(items.items()):
            before = known.get(key)
            known[key] = item
            if before is None:
                yield self._event("ADDED", item)
            elif _version(before) != _version(item):
                yield self._event("MODIFIED", item)
        return str(found.get("metadata", {}).get("resourceVersion", ""))

    def _follow(
        self,
        where: str | None,
        name: str | None,
        version: str,
        known: dict[tuple[str, str], Object],
    ) -> Iterator[WatchEvent[T]]:
        query = {
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        if name:
            query["fieldSelector"] = f"metadata.name={name}"
        lines = self._transport.lines(
            self._path(where),
            target=self._model.KIND.name,
            query=query,
            read_timeout=_WATCH_SECONDS + 15.0,
        )
        try:
            for line in lines:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                item = event["object"]
                if event["type"] == "DELETED":
                    known.pop(_key(item), None)
                else:
                    known[_key(item)] = item
                yield self._event(event["type"], item)
        except ClientError as error:
            if error.code != 410:
                raise

    def _event(self, kind: str, item: Object) -> WatchEvent[T]:
        item.setdefault("apiVersion", f"{GROUP}/{VERSION}")
        item.setdefault("kind", self._model.KIND.name)
        typed = cast(Literal["ADDED", "MODIFIED", "DELETED"], kind)
        return WatchEvent(typed, self._model.model_validate(item), item)

    def _request(
        self,
        method: str,
        name: str,
        namespace: str | None,
        body: Any = None,
        content_type: str = "application/json",
        query: dict[str, str] | None = None,
        subresource: str = "",
    ) -> Object:
        kind = self._model.KIND
        where = namespace or self._namespace
        target = f"{kind.name} {where}/{name}" if kind.namespaced else f"{kind.name} {name}"
        if not name:
            raise NotFoundError(f"{kind.name}: metadata.name is missing")
        return self._transport.request(
            method,
            self._path(where) + path_of(name, *filter(None, [subresource])),
            target=target,
            query=query,
            body=body,
            content_type=content_type,
        )

    def _path(self, namespace: str | None) -> str:
        kind = self._model.KIND
        if kind.namespaced and namespace:
            return path_of("apis", GROUP, VERSION, "namespaces", namespace, kind.plural)
        return path_of("apis", GROUP, VERSION, kind.plural)


def _key(item: Object) -> tuple[str, str]:
    metadata = item.get("metadata", {})
    return metadata.get("namespace", ""), metadata.get("name", "")


def _version(item: Object) -> str:
    return str(item.get("metadata", {}).get("resourceVersion", ""))
