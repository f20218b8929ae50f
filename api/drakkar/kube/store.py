"""The newest known state of one kind's objects, projected to small values.

Every entry carries the resourceVersion of its object, so that an older state never overwrites a
newer one, whatever the order in which lists, watch events and answers to our own writes come in:
what we wrote is seen at once (read your writes) and needs no expectations with time limits.
resourceVersions are comparable integers (KEP-5504; true of etcd-backed servers before it).
"""

from collections import OrderedDict
from collections.abc import Callable, Set
from typing import Generic, TypeVar

import structlog

from drakkar.kube.rest import Object

T = TypeVar("T")
Listener = Callable[[T | None, T | None], None]
"""Called with (old, new); old is None for an addition, new is None for a deletion."""

TOMBSTONES = 20_000
"""UIDs of deleted objects that are remembered, against late answers that would revive them."""
log = structlog.get_logger(__name__)


def object_key(raw: Object) -> str:
    """ "namespace/name", or the name of a cluster-scoped object."""
    meta = raw["metadata"]
    namespace = meta.get("namespace")
    return f"{namespace}/{meta['name']}" if namespace else meta["name"]


class Store(Generic[T]):
    """Values by ``object_key``."""

    def __init__(self, resource: str, project: Callable[[Object], T]) -> None:
        self.resource = resource
        self.items: dict[str, T] = {}
        self._project = project
        self._versions: dict[str, tuple[int, str]] = {}
        self._tombstones: OrderedDict[str, None] = OrderedDict()
        self._listeners: list[Listener[T]] = []
        self._rejected: set[str] = set()

    def subscribe(self, listener: Listener[T]) -> None:
        """Call ``listener`` at each later change. It must be quick and must not raise."""
        self._listeners.append(listener)

    def upsert(self, raw: Object) -> bool:
        """Take an object unless a newer state of it is known; True if it was news.

        An object that can't be projected is ignored, with one warning, so that it does not hide the
        others. Raises KeyError, TypeError or ValueError if it has no proper metadata.
        """
        meta = raw["metadata"]
        key, uid, version = object_key(raw), meta["uid"], int(meta["resourceVersion"])
        known = self._versions.get(key)
        if uid in self._tombstones or (known is not None and version <= known[0]):
            return False
        try:
            value = self._project(raw)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if key not in self._rejected:
                self._rejected.add(key)
                log.warning("object ignored", resource=self.resource, key=key, error=repr(error))
            return False
        old = self.items.get(key)
        if known is not None and known[1] != uid:
            self._bury(known[1])
            self._notify(old, None)
            old = None
        self.items[key] = value
        self._versions[key] = (version, uid)
        if value == old:
            return False
        self._notify(old, value)
        return True

    def delete(self, key: str, uid: str) -> bool:
        """Drop an object that is known not to exist any more; True if it was known."""
        self._bury(uid)
        self._rejected.discard(key)
        known = self._versions.get(key)
        if known is None or known[1] != uid:
            return False
        del self._versions[key]
        old = self.items.pop(key)
        self._notify(old, None)
        return True

    def retain(self, listed: Set[str], version: int, prefix: str = "") -> list[str]:
        """Drop what a list made at ``version`` did not hold, unless it is newer; returns the keys.

        The list was of the objects whose keys begin with ``prefix``.
        """
        gone = [
            key
            for key, (known, _) in self._versions.items()
            if key not in listed and known <= version and key.startswith(prefix)
        ]
        for key in gone:
            self.delete(key, self._versions[key][1])
        return gone

    def uid(self, key: str) -> str | None:
        """UID of a known object."""
        known = self._versions.get(key)
        return known[1] if known else None

    def _bury(self, uid: str) -> None:
        self._tombstones[uid] = None
        if len(self._tombstones) > TOMBSTONES:
            self._tombstones.popitem(last=False)

    def _notify(self, old: T | None, new: T | None) -> None:
        for listener in self._listeners:
            listener(old, new)
