"""Whether a checkpoint volume can be used."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from drakkar.kube.rest import ApiError, Rest
from drakkar_operator.cluster import paths
from drakkar_operator.cluster.limits import retrying

FRESH_SECONDS = 3.0
_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim as far as a gang cares."""

    problem: str | None = None
    """Why it can't be used, and what to do."""
    waits_for_consumer: bool = False
    """Its volume is made where kube-scheduler puts the first pod, so that one must bind it."""


class Claims:
    """Reads claims, at most one request per claim in ``FRESH_SECONDS``."""

    def __init__(self, rest: Rest, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest = rest
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], tuple[float, Claim]] = OrderedDict()

    async def look(self, namespace: str, name: str) -> Claim:
        """The claim's state. Raises ApiError if the server can't tell."""
        key = (namespace, name)
        known = self._known.get(key)
        if known is not None and self._clock() - known[0] < FRESH_SECONDS:
            return known[1]
        claim = await self._read(namespace, name)
        self._known[key] = (self._clock(), claim)
        self._known.move_to_end(key)
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return claim

    async def _read(self, namespace: str, name: str) -> Claim:
        field = "spec.checkpoint.storage.persistentVolumeClaim.claimName"
        try:
            raw = await retrying(lambda: self._rest.get(paths.claim(namespace, name)), attempts=3)
        except ApiError as error:
            if error.status == 404:
                return Claim(
                    f"{field}: there is no PersistentVolumeClaim {name!r} in namespace "
                    f"{namespace!r}; create it or name another (kubectl get pvc -n {namespace})"
                )
            if error.status == 403:
                # Not ours to see: the kubelet will tell.
                return Claim()
            raise
        status = raw.get("status") or {}
        if "deletionTimestamp" in raw["metadata"]:
            return Claim(f"{field}: PersistentVolumeClaim {name!r} is being deleted; name another")
        if status.get("phase") == "Lost":
            return Claim(f"{field}: PersistentVolumeClaim {name!r} has lost its volume")
        return Claim(waits_for_consumer=status.get("phase") == "Pending")
