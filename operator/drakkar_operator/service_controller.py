"""The reconciler of InferenceServices: observe, plan, apply, for one service at a time.

All thinking is in ``reconcile.serving``; this module gathers what it looks at and hands its plan on.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from drakkar.kube.rest import ApiError
from drakkar.v1alpha1.inferenceservice import InferenceServiceSpec
from drakkar_operator.cluster.caches import Caches
from drakkar_operator.cluster.executor import OutdatedError, RefusedError
from drakkar_operator.cluster.gangs import Gangs
from drakkar_operator.cluster.jobs import Jobs
from drakkar_operator.cluster.leader import NotLeaderError
from drakkar_operator.cluster.router_keys import RouterKeys
from drakkar_operator.cluster.routers import Routers
from drakkar_operator.cluster.service_executor import ServiceExecutor
from drakkar_operator.cluster.services import Services
from drakkar_operator.cluster.workqueue import WorkQueue
from drakkar_operator.metrics import Metrics
from drakkar_operator.model import JobView, NodeView, PodView, ServiceView
from drakkar_operator.reconcile.observed import CreationError
from drakkar_operator.reconcile.serving.autoscale import Memory
from drakkar_operator.reconcile.serving.members import gang_name
from drakkar_operator.reconcile.serving.models import resolve
from drakkar_operator.reconcile.serving.observed import ServiceObserved, Surroundings
from drakkar_operator.reconcile.serving.plan import plan
from drakkar_operator.reconcile.serving.traffic import History, counts, remember, traffic
from drakkar_operator.render.serving.objects import service_url
from drakkar_operator.render.settings import WorkerSettings
from drakkar_operator.scheduler import Scheduler

log = structlog.get_logger(__name__)


class ServiceController:
    """``handle`` is what the work queue calls; keys are "namespace/name"."""

    def __init__(
        self,
        *,
        services: Services,
        gangs: Gangs,
        jobs: Jobs,
        caches: Caches,
        executor: ServiceExecutor,
        routers: Routers,
        keys: RouterKeys,
        scheduler: Scheduler,
        queue: WorkQueue[str],
        metrics: Metrics,
        worker: WorkerSettings,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` gives epoch seconds, ``ticks`` what ``routers`` measures by."""
        self._services = services
        self._gangs = gangs
        self._jobs = jobs
        self._caches = caches
        self._executor = executor
        self._routers = routers
        self._keys = keys
        self._scheduler = scheduler
        self._queue = queue
        self._metrics = metrics
        self._worker = worker
        self._clock = clock
        self._ticks = ticks
        self._uids: dict[str, str] = {}
        self._memories: dict[str, Memory] = {}
        """Per service UID, as the next two."""
        self._histories: dict[str, History] = {}
        self._refusals: dict[str, tuple[int, CreationError]] = {}
        services.subscribe(self._on_service)
        caches.pods.subscribe(self._on_pod)
        caches.nodes.subscribe(self._on_node)
        jobs.subscribe(self._on_job)

    def enqueue_all(self) -> None:
        """Look at every service: at the start of a term as leader."""
        for key in self._services.items:
            self._queue.add(key)

    async def handle(self, key: str) -> None:
        """Reconcile a service; failures are logged, counted and tried again later. Never raises."""
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
            self._queue.retry(key)
            log.warning("creation refused", service=key, error=str(error))
        except ApiError as error:
            delay = self._queue.retry(key)
            log.warning("reconcile failed", service=key, error=str(error), retry_in=round(delay, 1))
        except Exception:
            delay = self._queue.retry(key)
            log.exception("reconcile crashed", service=key, retry_in=round(delay, 1))
        finally:
            self._metrics.reconciles.labels(result).inc()
            self._metrics.reconcile_seconds.observe(time.perf_counter() - started)

    async def _reconcile(self, key: str) -> None:
        service = self._services.items.get(key)
        known = self._uids.get(key)
        if known is not None and (service is None or service.uid != known):
            self._forget(key, known)
        if service is None:
            return
        self._uids[key] = service.uid
        await self._keys.load()
        seen = self._look(service)
        found = plan(seen)
        self._memories[service.uid] = found.memory
        before = set(self._members(service))
        service = await self._executor.write_status(service, found.status)
        if found.table is not None:
            pods = self._caches.pods_of_service(service.uid)
            ips = {pod.uid: pod.ip for pod in pods if _router(pod) and pod.ip and not pod.finished}
            self._routers.tell(key, found.table, ips)
        self._ask(service, found.requests, before)
        if found.requeue_after is not None:
            self._queue.add_after(key, found.requeue_after)
        queue = self._caches.queues.items.get(service.spec.queue or "")
        try:
            await self._executor.apply(
                service, found.actions, pinned=queue is not None and queue.view.pinned
            )
        except RefusedError as error:
            self._refusals[service.uid] = (service.generation, error.error)
            raise
        refusal = self._refusals.get(service.uid)
        if refusal is not None and not (refusal[1].permanent and refusal[0] == service.generation):
            self._refusals.pop(service.uid)

    def _look(self, service: ServiceView) -> ServiceObserved:
        """Everything of one moment: there is no await from here to the plan."""
        pods = self._caches.pods_of_service(service.uid)
        mine = [pod for pod in pods if pod.namespace == service.namespace]
        heard, now = self._routers.heard(service.uid), self._ticks()
        canary = service.status.canary
        trial = canary.revision if canary is not None and canary.state == "Running" else None
        history = remember(
            self._histories.get(service.uid, History()), counts(heard.values()), trial, now
        )
        self._histories[service.uid] = history
        wall = self._clock()
        picture = traffic(
            heard,
            [pod for pod in mine if _router(pod)],
            self._routers.table(service.uid),
            history,
            now=now,
        )
        return ServiceObserved(
            service=service,
            pods=tuple(pod for pod in mine if not _router(pod)),
            nodes=self._caches.nodes.items,
            traffic=picture,
            around=self._surroundings(service),
            memory=self._memories.get(service.uid, Memory()),
            now=wall,
        )

    def _surroundings(self, service: ServiceView) -> Surroundings:
        queue, refusal = service.spec.queue, self._refusals.get(service.uid)
        return Surroundings(
            model=resolve(service.spec, self._job_of(service.spec, service.namespace)),
            queue_found=queue is None or queue in self._caches.queues.items,
            creation_error=refusal[1] if refusal and refusal[0] == service.generation else None,
            url=service_url(service, self._worker),
        )

    def _job_of(self, spec: InferenceServiceSpec, namespace: str) -> JobView | None:
        source = spec.model.training_job
        return self._jobs.items.get(f"{namespace}/{source.name}") if source is not None else None

    def _ask(self, service: ServiceView, requests: object, before: set[str]) -> None:
        """Tell the scheduler which replicas need places, and which don't any more."""
        assert isinstance(requests, dict)
        for name in before | {member.name for member in service.status.members}:
            key = f"{service.namespace}/{gang_name(service.name, name)}"
            job = self._gangs.items.get(key)
            request = requests.get(name)
            if job is None or request is None:
                self._scheduler.withdraw(key)
            else:
                priority = self._caches.priority_of(job.spec.priority_class_name)
                self._scheduler.want(key, replace(job, priority=priority), request)

    def _members(self, service: ServiceView) -> list[str]:
        return [member.name for member in service.status.members]

    def _forget(self, key: str, uid: str) -> None:
        """A service is gone; Kubernetes collects what it owned."""
        self._uids.pop(key, None)
        for kept in (self._memories, self._histories, self._refusals):
            kept.pop(uid, None)
        self._routers.forget(uid)
        self._executor.forget(uid)
        if key not in self._services.items:
            self._queue.forget(key)

    def _on_service(self, old: ServiceView | None, new: ServiceView | None) -> None:
        service = new or old
        assert service is not None
        self._queue.add(service.key)

    def _on_pod(self, old: PodView | None, new: PodView | None) -> None:
        for pod in (old, new):
            if pod is not None and pod.serving is not None:
                self._queue.add(f"{pod.namespace}/{pod.serving.service}")

    def _on_node(self, old: NodeView | None, new: NodeView | None) -> None:
        """Services on a node whose health, or that of its devices, changed."""
        if old and new and _health(old) == _health(new):
            return
        node = new or old
        assert node is not None
        for key, service in self._services.items.items():
            places = [m.placement.nodes for m in service.status.members if m.placement]
            if any(node.name in nodes for nodes in places):
                self._queue.add(key)

    def _on_job(self, old: JobView | None, new: JobView | None) -> None:
        """Services that wait for a job's first checkpoint."""
        if new is None or (old is not None and old.status.checkpoints):
            return
        for key, service in self._services.items.items():
            source = service.spec.model.training_job
            if source is not None and (service.namespace, source.name) == new.key:
                self._queue.add(key)


def _router(pod: PodView) -> bool:
    return pod.serving is not None and pod.serving.member is None


def _health(node: NodeView) -> tuple[object, ...]:
    return node.ready, node.unschedulable, node.faults
