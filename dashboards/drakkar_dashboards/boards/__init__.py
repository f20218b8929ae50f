"""All dashboards, one module each."""

from drakkar_dashboards.boards import cluster, devices, operator, queues, serving, training
from drakkar_dashboards.model import Dashboard

ALL: tuple[Dashboard, ...] = (
    cluster.BOARD,
    queues.BOARD,
    training.BOARD,
    serving.BOARD,
    devices.BOARD,
    operator.BOARD,
)
