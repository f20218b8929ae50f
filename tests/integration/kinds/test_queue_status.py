"""The API server stores what the operator writes about a queue, as it is written."""

import contextlib

import pytest

from drakkar.client import Client, NotFoundError
from drakkar.constants import API_VERSION
from drakkar_operator.cluster import project
from drakkar_operator.cluster.queue_status import queue_status
from drakkar_operator.scheduling.usage import QueueUse, Use

pytestmark = pytest.mark.cluster

NAME = "kinds-test-queue-status"
GPU = "nvidia.com/gpu"


def test_a_status_comes_back_as_it_was_written(client: Client) -> None:
    with contextlib.suppress(NotFoundError):
        client.queues.delete(NAME)
    flavor = {"name": "h100", "nodeLabels": {"gpu": "h100"}, "quota": {GPU: 8}}
    spec = {
        "quota": {GPU: 16, "memory": "1Ti"},
        "flavors": [flavor],
        "parent": "kinds-test-no-such-parent",
        "borrowing": {GPU: "unlimited"},
        "lending": {GPU: 4},
    }
    client.create(
        {"apiVersion": API_VERSION, "kind": "Queue", "metadata": {"name": NAME}, "spec": spec}
    )
    use = Use({GPU: 20, "cpu": 1500, "memory": 3 << 29}, {GPU: 4}, {"memory": 5})
    told = queue_status(
        QueueUse(use, {"h100": use}, 3, 4, 0.1234, 1 / 3, "queue 'x' has no parent"),
        {},
        generation=1,
        now=1_800_000_000.5,
        average={GPU: 12.5, "cpu": 1250.0},
    )
    try:
        client.queues.patch(NAME, {"status": told}, subresource="status")
        raw = client.queues.get(NAME).status.wire()
        assert {key: raw[key] for key in told if key != "recentTime"} == {
            key: value for key, value in told.items() if key != "recentTime"
        }
        assert project.recent_use(raw) == ({GPU: 12.5, "cpu": 1250.0}, 1_800_000_000.0)
    finally:
        client.queues.delete(NAME)
