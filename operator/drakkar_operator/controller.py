"""The reconciler: observe, plan, apply, for one job at a time.

All thinking is in ``reconcile.trainingjob``; this module gathers what it looks at and hands its plan
to the executor. The status is always written before anything follows from it, so that an operator
that dies in between is continued by the next one.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from drakkar.kube.rest import ApiError
from drakkar.v1alpha1.trainingjob import Placement
from drakkar_operator.cluster.caches import Caches
from drakkar_operator.cluster.claims import Claim, Claims
from drakkar_operator.cluster.executor import Executor, OutdatedError, RefusedError
from drakkar_operator.cluster.jobs import Jobs
from drakkar_operator.cluster.leader import NotLeaderError
from drakkar_operator.cluster.reports import Reports
from drakkar_operator.cluster.workqueue import WorkQueue
from drakkar_operator.metrics import Metrics
from drakkar_operator.model import JobView, NodeView, PodView
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile import trainingjob
from drakkar_operator.reconcile.actions import CreatePod
from drakkar_operator.reconcile.observed import Context, CreationError
from drakkar_operator.render.pods import pod_name
from drakkar_operator.scheduler import Scheduler

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why the pods of a job could not be created, and what it was when they were tried."""

    generation: int
    placement: Placement | None
    error: CreationError


class Controller:
    """``handle`` is what the work queue calls; keys are "namespace/name"."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        caches: Caches,
        claims: Claims,
        executor: Executor,
        reports: Reports,
        scheduler: Scheduler,
        queue: WorkQueue[str],
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._jobs = jobs
        self._caches = caches
        self._claims = claims
        self._executor = executor
        self._reports = reports
        self._scheduler = scheduler
        self._queue = queue
        self._metrics = metrics
        self._clock = clock
        self._uids: dict[str, str] = {}
        self._refusals: dict[str, _Refusal] = {}
        """Per job UID."""
        jobs.subscribe(self._on_job)
        caches.pods.subscribe(self._on_pod)
        caches.nodes.subscribe(self._on_node)
        caches.queues.subscribe(lambda old, new: self._on_queue((new or old).view.name))  # type: ignore[union-attr]

    def enqueue_all(self) -> None:
        """Look at every job: at the start of a term as leader."""
        for key in self._jobs.items:
            self._queue.add(key)

    async def handle(self, key: str) -> None:
        """Reconcile a job; failures are logged, counted and tried again later. Never raises."""
        started = time.perf_counter()
        result = "error"
        try:
            await self._reconcile(key)
            self._queue.reset(key)
            result = "ok"
        except OutdatedError:
            result = "outdated"
            self._queue.add(key)
        except NotLeaderError:
            result = "not_leader"
        except RefusedError as error:
            result = "refused"
            if error.error.permanent:
                self._queue.add(key)
            else:
                self._queue.retry(key)
            log.warning("creation refused", job=key, error=str(error))
        except ApiError as error:
            delay = max(self._queue.retry(key), 0.0)
            log.warning("reconcile failed", job=key, error=str(error), retry_in=round(delay, 1))
        except Exception:
            delay = self._queue.retry(key)
            log.exception("reconcile crashed", job=key, retry_in=round(delay, 1))
        finally:
            self._metrics.reconciles.labels(result).inc()
            self._metrics.reconcile_seconds.observe(time.perf_counter() - started)

    async def _reconcile(self, key: str) -> None:
        job = self._jobs.items.get(key)
        known = self._uids.get(key)
        if known is not None and (job is None or job.uid != known):
            self._forget(key, known)
        if job is None:
            return
        self._uids[key] = job.uid
        job = replace(job, priority=self._caches.priority_of(job.spec.priority_class_name))
        context = await self.context(job)
        # No await from here to the plan: pods, nodes and report are of one moment.
        pods = self._own_pods(job)
        self._follow(key, job, pods)
        plan = trainingjob.plan(
            job,
            pods,
            self._caches.nodes.items,
            self._reports.newest(job.uid),
            self._clock(),
            replace(context, report_age=self._reports.age(job.uid)),
        )
        if plan.request is None or plan.actions or job.raw.get("status"):
            job = await self._executor.write_status(job, plan.status)
        # Else it came just now: the scheduler's decision follows at once and is its first status.
        self._start_refusals_anew(job)
        if plan.request is None:
            self._scheduler.withdraw(key)
        else:
            self._scheduler.want(key, job, plan.request)
        if plan.requeue_after is not None:
            self._queue.add_after(key, plan.requeue_after)
        try:
            await self._executor.apply(job, plan.actions, pinned=context.pinned)
        except RefusedError as error:
            self._refuse(job, error.error)
            raise
        if any(isinstance(action, CreatePod) for action in plan.actions):
            self._refusals.pop(job.uid, None)

    async def context(self, job: JobView) -> Context:
        """Facts about the job's surroundings: its queue, its volume, what was refused before."""
        queue = self._caches.queues.items.get(job.spec.queue) if job.spec.queue else None
        claim = await self._claim(job)
        refusal = self._refusals.get(job.uid)
        return Context(
            queue_found=job.spec.queue is None or queue is not None,
            pinned=(queue is not None and queue.view.pinned) or claim.waits_for_consumer,
            claim_problem=claim.problem,
            creation_error=(
                refusal.error if refusal and refusal.generation == job.generation else None
            ),
        )

    def _own_pods(self, job: JobView) -> tuple[PodView, ...]:
        """The job's pods; labels alone can be had by anyone, names in a namespace only once."""
        return tuple(
            pod
            for pod in self._caches.pods_of(job.uid)
            if pod.namespace == job.namespace
            and pod.replica is not None
            and pod.name == pod_name(job.name, pod.replica)
        )

    def _refuse(self, job: JobView, error: CreationError) -> None:
        """Remember a refusal, and since when this placement meets them."""
        now, known = self._clock(), self._refusals.get(job.uid)
        same = known is not None and known.placement == job.status.placement
        since = known.error.since if known is not None and same else now
        error = replace(error, since=since, last=now)
        self._refusals[job.uid] = _Refusal(job.generation, job.status.placement, error)

    def _start_refusals_anew(self, job: JobView) -> None:
        """A gang that gave up its place holds off; its next place is not blamed for this one."""
        known = self._refusals.get(job.uid)
        if known is not None and known.placement is not None and job.status.placement is None:
            error = replace(known.error, since=math.inf)
            self._refusals[job.uid] = _Refusal(known.generation, None, error)

    async def _claim(self, job: JobView) -> Claim:
        """State of the checkpoint volume, for a gang that still needs pods."""
        storage = job.spec.checkpoint.storage
        claim = storage.persistent_volume_claim if storage is not None else None
        if (
            claim is None
            or cond.finished(job.status.conditions)
            or job.spec.suspend
            or job.problem is not None
        ):
            return Claim()
        if len(self._own_pods(job)) >= job.replicas:
            return Claim()
        return await self._claims.look(job.namespace, claim.claim_name)

    def _follow(self, key: str, job: JobView, pods: tuple[PodView, ...]) -> None:
        """Listen to the coordinator as long as there is one that can speak."""
        first = next((pod for pod in pods if pod.replica == 0), None)
        if (
            first is not None
            and first.ip is not None
            and first.running
            and not first.finished
            and job.spec.runtime == "torch"
        ):
            self._reports.follow(key, job.uid, first.uid, first.ip)
        else:
            self._reports.stop(job.uid)

    def _forget(self, key: str, uid: str) -> None:
        """A job is gone; Kubernetes collects what it owned."""
        self._uids.pop(key, None)
        self._refusals.pop(uid, None)
        self._scheduler.withdraw(key)
        self._reports.forget(uid)
        if key not in self._jobs.items:
            self._queue.forget(key)

    def _on_job(self, old: JobView | None, new: JobView | None) -> None:
        job = new or old
        assert job is not None
        # A new job only has to ask for places: that is quick, and it must not wait behind those that
        # have theirs.
        self._queue.add(f"{job.namespace}/{job.name}", priority=int(old is None))

    def _on_pod(self, old: PodView | None, new: PodView | None) -> None:
        for pod in (old, new):
            if pod is not None and pod.job and pod.serving is None:
                self._queue.add(f"{pod.namespace}/{pod.job}")

    def _on_node(self, old: NodeView | None, new: NodeView | None) -> None:
        """Jobs on a node whose health, or that of its devices, changed."""
        if old and new and _health(old) == _health(new):
            return
        node = new or old
        assert node is not None
        for key, job in self._jobs.items.items():
            placement = job.status.placement
            if (
                placement is not None
                and node.name in placement.nodes
                and not cond.finished(job.status.conditions)
            ):
                self._queue.add(key, priority=1)

    def _on_queue(self, name: str) -> None:
        for key, job in self._jobs.items.items():
            if (
                job.spec.queue == name
                and job.status.placement is None
                and not cond.finished(job.status.conditions)
            ):
                self._queue.add(key)


def _health(node: NodeView) -> tuple[object, ...]:
    """What jobs on a node must know of it."""
    return node.ready, node.unschedulable, node.faults
