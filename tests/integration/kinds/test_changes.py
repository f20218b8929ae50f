"""What of a TrainingJob may change, and when."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from drakkar.client import Client, InvalidError, NotFoundError
from drakkar.constants import API_VERSION

pytestmark = pytest.mark.cluster

NAME = "kinds-test-changes"
FROZEN: dict[str, Any] = {
    "replicas": 3,
    "processesPerReplica": 2,
    "recipe": {"config": {"steps": 11}},
    "template": {"spec": {"nodeSelector": {"kinds-test": "elsewhere"}}},
    "image": "example.com/other:1",
    "resources": {"requests": {"cpu": 1}},
    "topology": {"required": "rack"},
    "checkpoint": {"everySteps": 7},
    "accelerators": {"resource": "nvidia.com/gpu", "count": 1},
}
FREE: dict[str, Any] = {
    "suspend": True,
    "faultTolerance": {"maxRestarts": 3},
    "priorityClassName": "system-node-critical",
    "movable": False,
    "activeDeadlineSeconds": 60,
    "ttlSecondsAfterFinished": 60,
}
PLACEMENT = {"level": "rack", "domain": "rack-1", "nodes": ["kinds-test-no-such-node"]}
SUSPENDED = {
    "type": "Suspended",
    "status": "True",
    "reason": "Suspended",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


@pytest.fixture(scope="module")
def job(client: Client) -> Iterator[str]:
    """A job that no node can take, so that it stays as it is with and without an operator."""
    remove(client)
    client.create(
        {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "metadata": {"name": NAME},
            "spec": {
                "replicas": 2,
                "queue": "kinds-test",
                "recipe": {"name": "pretrain", "config": {"steps": 10}},
                "template": {"spec": {"nodeSelector": {"kinds-test": "nowhere"}}},
            },
        }
    )
    yield NAME
    remove(client)


def remove(client: Client) -> None:
    with contextlib.suppress(NotFoundError):
        client.training_jobs.delete(NAME)


@pytest.mark.parametrize("field", FROZEN)
def test_frozen_field(client: Client, job: str, field: str) -> None:
    with pytest.raises(InvalidError, match="suspend it first"):
        client.training_jobs.patch(job, {"spec": {field: FROZEN[field]}}, dry_run=True)


def test_frozen_field_can_not_be_removed(client: Client, job: str) -> None:
    with pytest.raises(InvalidError, match="suspend it first"):
        client.training_jobs.patch(job, {"spec": {"template": None}}, dry_run=True)


def test_frozen_field_whatever_is_said_of_the_status(client: Client, job: str) -> None:
    """The rules pass over writes that change the phase: only those to the status itself can."""
    with pytest.raises(InvalidError, match="suspend it first"):
        change = {"status": {"phase": "Running"}, "spec": {"replicas": FROZEN["replicas"]}}
        client.training_jobs.patch(job, change, dry_run=True)


@pytest.mark.parametrize("field", FREE)
def test_free_field(client: Client, job: str, field: str) -> None:
    client.training_jobs.patch(job, {"spec": {field: FREE[field]}}, dry_run=True)


def test_queue_changes_while_the_job_waits(client: Client, job: str) -> None:
    client.training_jobs.patch(job, {"spec": {"queue": "kinds-test-2"}}, dry_run=True)


def test_suspended_job_can_change(client: Client, job: str) -> None:
    """Runs last: an operator, if there is one, sets the condition by itself."""
    client.training_jobs.patch(job, {"spec": {"suspend": True}})
    client.training_jobs.patch(job, {"status": {"conditions": [SUSPENDED]}}, subresource="status")
    for field, value in FROZEN.items():
        if field not in ("accelerators",):
            client.training_jobs.patch(job, {"spec": {field: value}}, dry_run=True)


def test_placed_job_can_not_change_queue(client: Client) -> None:
    name = f"{NAME}-placed"
    client.create(
        {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "metadata": {"name": name},
            "spec": {
                "queue": "kinds-test",
                "recipe": {"name": "pretrain"},
                "template": {"spec": {"nodeSelector": {"kinds-test": "nowhere"}}},
            },
        }
    )
    placed = {"status": {"placement": PLACEMENT}}
    try:
        # An operator, if there is one, withdraws so wrong a placement within moments.
        for _ in range(20):
            client.training_jobs.patch(name, placed, subresource="status")
            try:
                client.training_jobs.patch(name, {"spec": {"queue": "other"}}, dry_run=True)
            except InvalidError as error:
                assert "can't change queue" in str(error)
                return
        raise AssertionError("the queue of a placed job could be changed")
    finally:
        client.training_jobs.delete(name)
