"""The operator put together: what runs always, and what runs only while this process leads."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import structlog
from aiohttp import web

from drakkar.kube.connection import Connection
from drakkar.kube.rest import ApiError, Rest
from drakkar_operator.cluster.caches import Caches
from drakkar_operator.cluster.claims import Claims
from drakkar_operator.cluster.executor import Executor, Limits
from drakkar_operator.cluster.gangs import GangQueue, Gangs, GangWriter
from drakkar_operator.cluster.jobs import Jobs
from drakkar_operator.cluster.kopf_watch import KopfWatch
from drakkar_operator.cluster.leader import Leader, LeaseTimes, NotLeaderError
from drakkar_operator.cluster.queue_status import QueueStatus
from drakkar_operator.cluster.recorder import Recorder
from drakkar_operator.cluster.reports import Reports
from drakkar_operator.cluster.router_keys import RouterKeys
from drakkar_operator.cluster.routers import Routers
from drakkar_operator.cluster.service_executor import ServiceExecutor
from drakkar_operator.cluster.services import Services
from drakkar_operator.cluster.topology_status import TopologyStatus
from drakkar_operator.cluster.workqueue import WorkQueue
from drakkar_operator.controller import Controller
from drakkar_operator.endpoints import application
from drakkar_operator.fleet import Fleet, FleetCollector, fresh_restarts
from drakkar_operator.metrics import Metrics
from drakkar_operator.model import JobView
from drakkar_operator.planner import Planner
from drakkar_operator.questions import Forward, debug_application, plan_application
from drakkar_operator.scheduler import Scheduler
from drakkar_operator.service_controller import ServiceController
from drakkar_operator.settings import Settings

DRAIN_SECONDS = 15.0
"""What is in flight at SIGTERM may take this long to finish."""
DEAF_SECONDS = 5.0
"""While kopf does not run, jobs are listed this often."""
log = structlog.get_logger(__name__)


class Core:
    """All parts but kopf's watch and the HTTP endpoints.

    ``lease_rest`` is a client of its own: a flood of writes must not starve the Lease's renewal.
    ``clock`` is monotonic and advances as the event loop's, ``wall`` gives seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        rest: Rest,
        lease_rest: Rest,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        seconds = settings.lease_seconds
        self.caches = Caches(rest, metrics, watch_seconds=settings.watch_seconds, clock=clock)
        self.jobs = Jobs(rest, settings.namespaces)
        self.services = Services(rest, settings.namespaces)
        self.gangs = Gangs(self.jobs, self.services)
        self.queue: WorkQueue[str] = WorkQueue(clock=clock)
        self.service_queue: WorkQueue[str] = WorkQueue(clock=clock)
        self.leader = Leader(
            lease_rest,
            namespace=settings.namespace,
            name=settings.lease,
            identity=settings.identity,
            times=LeaseTimes(seconds, seconds * 2 / 3, seconds * 2 / 15),
            clock=clock,
            on_change=lambda leading: metrics.leader.set(int(leading)),
        )
        self.recorder = Recorder(rest, metrics, instance=settings.identity, clock=clock)
        self.reports = Reports(
            self.queue.add_after, metrics, port=settings.report_port, clock=clock
        )
        self.executor = Executor(
            rest,
            check=self.leader.check,
            pods=self.caches.pods,
            jobs=self.jobs,
            recorder=self.recorder,
            metrics=metrics,
            worker=settings.worker,
            limits=Limits(settings.parallel, settings.qps),
            clock=clock,
        )
        self.router_keys = RouterKeys(
            self.executor, namespace=settings.namespace, name=f"{settings.lease}-routers"
        )
        self.routers = Routers(
            self.service_queue.add,
            self.router_keys.token,
            port=settings.router_port,
            clock=clock,
        )
        self.service_executor = ServiceExecutor(
            self.executor, self.services, self.recorder, self.router_keys, settings.worker
        )
        self.scheduler = Scheduler(
            jobs=self.gangs,
            caches=self.caches,
            executor=GangWriter(
                self.executor, self.service_executor, self.services, self.gangs, clock=wall
            ),
            queue=GangQueue(self.queue, self.service_queue),
            metrics=metrics,
            clock=wall,
        )
        self.controller = Controller(
            jobs=self.jobs,
            caches=self.caches,
            claims=Claims(rest, clock=clock),
            executor=self.executor,
            reports=self.reports,
            scheduler=self.scheduler,
            queue=self.queue,
            metrics=metrics,
            clock=wall,
        )
        self.service_controller = ServiceController(
            services=self.services,
            gangs=self.gangs,
            jobs=self.jobs,
            caches=self.caches,
            executor=self.service_executor,
            routers=self.routers,
            keys=self.router_keys,
            scheduler=self.scheduler,
            queue=self.service_queue,
            metrics=metrics,
            worker=settings.worker,
            clock=wall,
            ticks=clock,
        )
        self.planner = Planner(
            jobs=self.jobs,
            caches=self.caches,
            controller=self.controller,
            scheduler=self.scheduler,
            clock=wall,
        )
        self.topology_status = TopologyStatus(rest, caches=self.caches, check=self.leader.check)
        self.queue_status = QueueStatus(
            rest,
            caches=self.caches,
            jobs=self.gangs,
            scheduler=self.scheduler,
            check=self.leader.check,
            clock=wall,
        )
        self._wall = wall
        self.jobs.subscribe(self._count_restarts)
        metrics.registry.register(FleetCollector(self.fleet))

    def fleet(self) -> Fleet | None:
        """All that is told of jobs, queues and nodes at a scrape; None while another leads, so
        that sums over the replicas of the operator are right."""
        if not (self.leader.leading and self.caches.synced):
            return None
        entries = self.caches.queues.items
        return Fleet(
            now=self._wall(),
            jobs=self.jobs.items.values(),
            nodes=self.caches.nodes.items.values(),
            pods=self.caches.pods.items.values(),
            queues=self.scheduler.usage(),
            quotas={name: entry.view.quota for name, entry in entries.items()},
            levels=self.caches.levels,
            unusable=self.scheduler.unusable(),
        )

    def _count_restarts(self, old: JobView | None, new: JobView | None) -> None:
        for scope, reason in fresh_restarts(old, new) if self.leader.leading else ():
            self.metrics.restarts.labels(scope, reason).inc()

    async def run(self, stop: asyncio.Event, *others: Coroutine[Any, Any, Any]) -> None:
        """Work, with ``others`` beside it, until ``stop`` is set; then finish and tidy up.

        What is in flight is finished, the Lease released. Raises what made a part fail.
        """
        background = [informer.run() for informer in self.caches.informers]
        tasks = [_task(c) for c in (*background, self.recorder.run(), *others)]
        election = _task(self.leader.run())
        terms = _task(self._terms(stop))
        try:
            await asyncio.wait([terms, election, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            failed = [task for task in (terms, election, *tasks) if _failed(task)]
            await _cancel([terms])
            await self.reports.close()
            await self.routers.close()
            await self.recorder.flush()
            await _cancel([election])
            await self.leader.release()
            await _cancel(tasks)
        if failed:
            failed[0].result()

    async def _terms(self, stop: asyncio.Event) -> None:
        """Lead whenever the Lease is ours, until told to stop."""
        stopped = _task(stop.wait())
        try:
            while not stop.is_set():
                acquired = _task(self.leader.acquired())
                try:
                    await asyncio.wait([acquired, stopped], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await _cancel([acquired])
                if not stop.is_set():
                    await self._lead(stopped)
        finally:
            await _cancel([stopped])

    async def _lead(self, stopped: "asyncio.Task[Any]") -> None:
        lost = _task(self.leader.lost())
        work = _task(self._work())
        try:
            await asyncio.wait([lost, stopped, work], return_when=asyncio.FIRST_COMPLETED)
            if _failed(work) and not isinstance(work.exception(), NotLeaderError):
                work.result()
            if stopped.done() and not lost.done():
                self.queue.close()
                self.service_queue.close()
                await asyncio.wait(
                    [work, lost], timeout=DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            await _cancel([lost, work])

    async def _work(self) -> None:
        """What only a leader does. Ends when the queue is closed and its workers are idle."""
        await self.caches.wait_synced()
        await self._list_again()
        log.info("working", jobs=len(self.jobs.items), pods=len(self.caches.pods.items))
        self.controller.enqueue_all()
        self.service_controller.enqueue_all()
        self.scheduler.reset()
        workers = [
            _task(queue.work(handle))
            for queue, handle in (
                (self.queue, self.controller.handle),
                (self.service_queue, self.service_controller.handle),
            )
            for _ in range(self.settings.workers)
        ]
        cycles = [
            _task(self.scheduler.run()),
            _task(self.queue_status.run()),
            _task(self.topology_status.run()),
        ]
        try:
            await asyncio.wait([*workers, *cycles], return_when=asyncio.FIRST_COMPLETED)
            for task in (*workers, *cycles):
                if _failed(task):
                    task.result()
            # The queue is closed: each worker ends with the key that it has.
            await asyncio.wait(workers)
        finally:
            await _cancel([*workers, *cycles])

    async def resync(self) -> None:
        """Compare jobs and services with full lists. Raises ApiError."""
        await self.jobs.resync()
        await self.services.resync()

    async def _list_again(self) -> None:
        """See what the leader before us wrote since our last look."""
        while True:
            try:
                await self.resync()
                return
            except ApiError as error:
                log.warning("jobs not listed", error=str(error))
                await asyncio.sleep(1.0)


class Operator:
    """One process of the operator."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self.settings = settings
        metrics = Metrics()
        observe = metrics.observe_request
        self._rest = Rest(connection, connections=settings.parallel + 32, observe=observe)
        self._lease_rest = Rest(connection, timeout=settings.lease_seconds / 2, observe=observe)
        self.core = Core(settings, self._rest, self._lease_rest, metrics)
        self.kopf = KopfWatch(
            connection, self.core.jobs.take, self.core.services.take, settings.namespaces
        )
        self.ports: dict[str, int] = {}
        """Port of each HTTP application, once it listens: http, plan, debug."""
        self._listed = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._rest.close)
            stack.push_async_callback(self._lease_rest.close)
            await self._serve(stack)
            await self.core.run(stop, self._resync(), self._kopf())

    async def _serve(self, stack: AsyncExitStack) -> None:
        app = application(
            metrics=self.core.metrics,
            caches=self.core.caches,
            queue=self.core.queue,
            ready=self._listed.is_set,
            stuck_after=self.settings.watch_seconds * 1.25 + 70.0,
        )
        await self._listen(stack, "http", app, self.settings.port)
        plan = plan_application(self.core.planner, self._forward(self.settings.plan_port))
        await self._listen(stack, "plan", plan, self.settings.plan_port)
        debug = debug_application(self.core.scheduler, self._forward(self.settings.debug_port))
        await self._listen(stack, "debug", debug, self.settings.debug_port)
        log.info("listening", **self.ports)

    def _forward(self, port: int) -> Forward:
        core = self.core
        return Forward(core.leader, core.caches, namespace=self.settings.namespace, port=port)

    async def _listen(
        self, stack: AsyncExitStack, name: str, app: web.Application, port: int
    ) -> None:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self.settings.host, port).start()
        self.ports[name] = runner.addresses[0][1]

    async def _resync(self) -> None:
        """List the jobs: first of all, and then again and again against watches that died."""
        while True:
            try:
                await self.core.resync()
                self._listed.set()
            except ApiError as error:
                log.warning("jobs not listed", error=str(error))
                await asyncio.sleep(2.0)
                continue
            waited = 0.0
            while waited < self.settings.resync_seconds:
                await asyncio.sleep(min(DEAF_SECONDS, self.settings.resync_seconds))
                waited += DEAF_SECONDS
                if not self.kopf.alive:
                    break

    async def _kopf(self) -> None:
        # Without the CRD kopf would watch nothing for ever: the first list proves that it is there.
        await self._listed.wait()
        await self.kopf.run()


def _task(coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    return asyncio.create_task(coroutine, name=getattr(coroutine, "__qualname__", None))


def _failed(task: "asyncio.Task[Any]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


async def _cancel(tasks: "list[asyncio.Task[Any]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
