"""The operator put together: what runs always, and what runs only while this process leads."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import structlog
from aiohttp import web

from drakkar_operator.cluster.caches import Caches
from drakkar_operator.cluster.claims import Claims
from drakkar_operator.cluster.connection import Connection
from drakkar_operator.cluster.executor import Executor, Limits
from drakkar_operator.cluster.jobs import Jobs
from drakkar_operator.cluster.kopf_watch import KopfWatch
from drakkar_operator.cluster.leader import Leader, LeaseTimes, NotLeaderError
from drakkar_operator.cluster.queue_status import QueueStatus
from drakkar_operator.cluster.recorder import Recorder
from drakkar_operator.cluster.reports import Reports
from drakkar_operator.cluster.rest import ApiError, Rest
from drakkar_operator.cluster.workqueue import WorkQueue
from drakkar_operator.controller import Controller
from drakkar_operator.endpoints import application
from drakkar_operator.metrics import Metrics
from drakkar_operator.scheduler import Scheduler
from drakkar_operator.settings import Settings

DRAIN_SECONDS = 15.0
"""What is in flight at SIGTERM may take this long to finish."""
DEAF_SECONDS = 5.0
"""While kopf does not run, jobs are listed this often."""
log = structlog.get_logger(__name__)


class Operator:
    """One process of the operator. ``run`` returns after ``stop`` was set and all is tidied up."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self.settings = settings
        self.metrics = metrics = Metrics()
        self.rest = rest = Rest(
            connection,
            connections=settings.parallel + 32,
            observe=metrics.observe_request,
        )
        self.caches = caches = Caches(rest, metrics, watch_seconds=settings.watch_seconds)
        self.jobs = jobs = Jobs(rest, settings.namespaces)
        self.queue: WorkQueue[str] = WorkQueue()
        seconds = settings.lease_seconds
        # The Lease has a client of its own: a flood of writes must not starve its renewal.
        self._lease_rest = Rest(connection, timeout=seconds / 2, observe=metrics.observe_request)
        self.leader = Leader(
            self._lease_rest,
            namespace=settings.namespace,
            name=settings.lease,
            identity=settings.identity,
            times=LeaseTimes(seconds, seconds * 2 / 3, seconds * 2 / 15),
            on_change=lambda leading: metrics.leader.set(int(leading)),
        )
        self.recorder = Recorder(rest, metrics, instance=settings.identity)
        self.reports = Reports(self.queue.add_after, metrics, port=settings.report_port)
        executor = Executor(
            rest,
            check=self.leader.check,
            pods=caches.pods,
            jobs=jobs,
            recorder=self.recorder,
            metrics=metrics,
            worker=settings.worker,
            limits=Limits(settings.parallel, settings.qps),
        )
        self.scheduler = Scheduler(
            jobs=jobs, caches=caches, executor=executor, queue=self.queue, metrics=metrics
        )
        self.controller = Controller(
            jobs=jobs,
            caches=caches,
            claims=Claims(rest),
            executor=executor,
            reports=self.reports,
            scheduler=self.scheduler,
            queue=self.queue,
            metrics=metrics,
        )
        self.queue_status = QueueStatus(
            rest, caches=caches, jobs=jobs, scheduler=self.scheduler, check=self.leader.check
        )
        self.kopf = KopfWatch(connection, jobs.take, settings.namespaces)
        self.port: int | None = None
        """Port of the HTTP endpoints, once they listen."""
        self._listed = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; then finish what is in flight and release the Lease."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.rest.close)
            stack.push_async_callback(self._lease_rest.close)
            stack.push_async_callback(self.reports.close)
            await self._serve(stack)
            background = [
                *(informer.run() for informer in self.caches.informers),
                self._resync(),
                self._kopf(),
                self.recorder.run(),
            ]
            tasks = [_task(coroutine) for coroutine in background]
            election = _task(self.leader.run())
            terms = _task(self._terms(stop))
            try:
                await asyncio.wait([terms, election, *tasks], return_when=asyncio.FIRST_COMPLETED)
            finally:
                failed = [t for t in (terms, election, *tasks) if _failed(t)]
                await _cancel([terms])
                await self.recorder.flush()
                await _cancel([election])
                await self.leader.release()
                await _cancel(tasks)
            if failed:
                failed[0].result()

    async def _serve(self, stack: AsyncExitStack) -> None:
        app = application(
            metrics=self.metrics,
            caches=self.caches,
            jobs=self.jobs,
            queue=self.queue,
            ready=self._listed.is_set,
            stuck_after=self.settings.watch_seconds * 1.25 + 70.0,
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self.settings.host, self.settings.port).start()
        self.port = runner.addresses[0][1]
        log.info("listening", port=self.port)

    async def _resync(self) -> None:
        """List the jobs: first of all, and then again and again against watches that died."""
        while True:
            try:
                await self.jobs.resync()
                self._listed.set()
                for _ in range(max(1, round(self.settings.resync_seconds / DEAF_SECONDS))):
                    await asyncio.sleep(min(DEAF_SECONDS, self.settings.resync_seconds))
                    if not self.kopf.alive:
                        break
            except ApiError as error:
                log.warning("jobs not listed", error=str(error))
                await asyncio.sleep(2.0)

    async def _kopf(self) -> None:
        # Without the CRD kopf would watch nothing for ever: the first list proves that it is there.
        await self._listed.wait()
        await self.kopf.run()

    async def _terms(self, stop: asyncio.Event) -> None:
        """Lead whenever the Lease is ours, until told to stop."""
        stopped = _task(stop.wait())
        try:
            while not stop.is_set():
                acquired = _task(self.leader.acquired())
                await asyncio.wait([acquired, stopped], return_when=asyncio.FIRST_COMPLETED)
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
                await asyncio.wait([work, lost], timeout=DRAIN_SECONDS)
        finally:
            await _cancel([lost, work])

    async def _work(self) -> None:
        """What only a leader does. Ends when the queue is closed and its workers are idle."""
        await self.caches.wait_synced()
        # The leader before us may have written since our last look.
        while True:
            try:
                await self.jobs.resync()
                break
            except ApiError as error:
                log.warning("jobs not listed", error=str(error))
                await asyncio.sleep(1.0)
        log.info("working", jobs=len(self.jobs.items), pods=len(self.caches.pods.items))
        self.controller.enqueue_all()
        workers = [
            _task(self.queue.work(self.controller.handle)) for _ in range(self.settings.workers)
        ]
        cycles = [_task(self.scheduler.run()), _task(self.queue_status.run())]
        try:
            drained = asyncio.gather(*workers)
            await asyncio.wait([drained, *cycles], return_when=asyncio.FIRST_COMPLETED)
            for task in cycles:
                if _failed(task):
                    task.result()
        finally:
            await _cancel([*workers, *cycles])


def _task(coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    return asyncio.create_task(coroutine, name=getattr(coroutine, "__qualname__", None))


def _failed(task: "asyncio.Task[Any]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


async def _cancel(tasks: "list[asyncio.Task[Any]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
