"""drakkar diagnose on the real API server."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from drakkar.cli.diagnose import gather
from drakkar.client import Client, NotFoundError
from drakkar.constants import API_VERSION, LABEL_JOB
from drakkar.diagnose import diagnose

pytestmark = pytest.mark.cluster

NAME = "kinds-test-diagnose"
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": f"{NAME}-0", "labels": {LABEL_JOB: NAME}},
    "spec": {
        # No node has it, so no kubelet touches the pod.
        "nodeSelector": {"kinds-test": "nowhere"},
        "containers": [{"name": "trainer", "image": "example.com/none:1"}],
    },
}


@pytest.fixture
def job(client: Client) -> Iterator[str]:
    remove(client)
    client.create(
        {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "metadata": {"name": NAME},
            "spec": {
                "replicas": 1,
                "queue": "kinds-test-no-such-queue",
                "recipe": {"name": "pretrain", "config": {"steps": 10}},
                "template": {"spec": {"nodeSelector": {"kinds-test": "nowhere"}}},
            },
        }
    )
    client.create(POD)
    yield NAME
    remove(client)


def remove(client: Client) -> None:
    with contextlib.suppress(NotFoundError):
        client.training_jobs.delete(NAME)
    client.pods_of_nodes.delete(client.namespace, f"{NAME}-0")


def test_what_the_api_server_has_is_gathered_and_understood(client: Client, job: str) -> None:
    facts = gather(client, job)
    assert [each["metadata"]["name"] for each in facts.pods] == [f"{NAME}-0"]
    assert facts.logs == {f"{NAME}-0": []}
    (finding, *_) = diagnose(facts)
    # With an operator in the cluster the queue that is not there is told, without one nothing is.
    assert finding.cause in (
        "Drakkar's operator has not seen it.",
        "Its spec can't be used.",
    ), finding


def test_a_name_that_nothing_has(client: Client) -> None:
    with pytest.raises(NotFoundError, match="no TrainingJob and no InferenceService"):
        gather(client, "kinds-test-nothing")
