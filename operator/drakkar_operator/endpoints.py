"""/metrics for Prometheus, /healthz and /readyz for the kubelet."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from drakkar_operator.cluster.caches import Caches
from drakkar_operator.cluster.workqueue import WorkQueue
from drakkar_operator.metrics import Metrics


def application(
    *,
    metrics: Metrics,
    caches: Caches,
    queue: WorkQueue[str],
    ready: Callable[[], bool],
    stuck_after: float,
) -> web.Application:
    """The HTTP application. Health means that every watch shows signs of life; an API server that
    is away is no reason to restart the operator."""

    async def scrape(request: web.Request) -> web.Response:
        metrics.queue_depth.set(len(queue))
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(metrics.registry), headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        stuck = [i.resource for i in caches.informers if i.age() > stuck_after]
        if stuck:
            return web.Response(status=503, text=f"stuck: {', '.join(stuck)}\n")
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        waiting = [i.resource for i in caches.informers if not i.synced.is_set()]
        if waiting or not ready():
            return web.Response(
                status=503, text=f"not listed yet: {', '.join(waiting) or 'jobs'}\n"
            )
        return web.Response(text="ok\n")

    app = web.Application()
    app.router.add_get("/metrics", scrape)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app
