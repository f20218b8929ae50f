"""Ownership: what is created for a job is deleted with it by Kubernetes."""

from typing import Any

from drakkar.constants import API_VERSION
from drakkar_operator.model import JobView


def owner_reference(job: JobView) -> dict[str, Any]:
    """Reference of a job as the controlling owner."""
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "name": job.name,
        "uid": job.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
