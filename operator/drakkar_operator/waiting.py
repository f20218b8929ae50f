"""The gangs that wait for places, as the reconciler asks for them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from drakkar.v1alpha1.trainingjob import Placement
from drakkar_operator.cluster.caches import Caches
from drakkar_operator.cluster.gangs import GangQueue, Gangs
from drakkar_operator.fleet import waits_since
from drakkar_operator.model import JobView
from drakkar_operator.reconcile.demand import grown_from
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.workload import Pending


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: GangRequest
    uid: str
    generation: int
    placement: Placement | None
    """What the request was made against."""


class WaitingGangs:
    """Keys are "namespace/name"."""

    def __init__(
        self, jobs: Gangs, caches: Caches, queue: GangQueue, *, clock: Callable[[], float]
    ) -> None:
        self._jobs = jobs
        self._caches = caches
        self._queue = queue
        self._clock = clock
        self._waiting: dict[str, _Waiting] = {}
        self.told: dict[str, float] = {}
        """When each was told last why it waits."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, key: str) -> bool:
        return key in self._waiting

    @property
    def requests(self) -> dict[str, GangRequest]:
        """What each asks for."""
        return {key: waiting.request for key, waiting in self._waiting.items()}

    def want(self, key: str, job: JobView, request: GangRequest) -> bool:
        """The job needs places; False if it waits for the same already."""
        waiting = _Waiting(request, job.uid, job.generation, job.status.placement)
        if self._waiting.get(key) == waiting:
            return False
        self._waiting[key] = waiting
        return True

    def withdraw(self, key: str) -> None:
        """The job needs no place (any more)."""
        self._waiting.pop(key, None)
        self.told.pop(key, None)

    def clear(self) -> None:
        """Forget all of them."""
        self._waiting.clear()
        self.told.clear()

    def lacks(self, key: str, job: JobView) -> bool:
        """Whether some of the gang's ranks have no place."""
        waiting = self._waiting.get(key)
        return waiting is not None and not _extra(job, waiting.request)

    def pending(self) -> Iterator[Pending]:
        """What the scheduler is given of each; those whose grounds have changed are asked anew."""
        now = self._clock()
        for key, waiting in list(self._waiting.items()):
            job = self._jobs.items.get(key)
            if job is None or job.deleting:
                self.withdraw(key)
            elif waiting != _Waiting(
                waiting.request, job.uid, job.generation, job.status.placement
            ):
                # It was asked for on grounds that have changed: the reconciler asks anew.
                self.withdraw(key)
                self._queue.add(key)
            else:
                yield Pending(
                    key=job.key,
                    request=waiting.request,
                    queue=job.spec.queue,
                    priority=self._caches.priority_of(job.spec.priority_class_name),
                    created=job.created,
                    spares=spares(job),
                    extra=_extra(job, waiting.request),
                    charged=job.status.placement is not None,
                    since=waits_since(job),
                    lasts=_lasts(job, now),
                    preempts=self._caches.preempts(job.spec.priority_class_name),
                )


def spares(job: JobView) -> tuple[str, ...]:
    """Where the job keeps room for repairs."""
    return tuple(job.status.placement.spares) if job.status.placement is not None else ()


def _extra(job: JobView, request: GangRequest) -> bool:
    """Whether a gang lacks nothing: it asks for spares, or for a larger size."""
    held = job.status.placement is not None
    spares = held and bool(request.missing) and min(request.missing) >= job.replicas
    return spares or grown_from(job, request)


def _lasts(job: JobView, now: float) -> float | None:
    """Most seconds that it can run from now on."""
    deadline, start = job.spec.active_deadline_seconds, job.status.start_time
    if deadline is None:
        return None
    return float(deadline) if start is None else max(0.0, start.timestamp() + deadline - now)
