"""The headless service by which the agents of a gang find each other."""

from typing import Any

from drakkar.constants import AGENT_PORT, LABEL_JOB, LABEL_JOB_UID, MANAGED_BY
from drakkar_operator.model import JobView
from drakkar_operator.render.owner import owner_reference


def headless(job: JobView) -> dict[str, Any]:
    """Gives every pod a DNS name, ``POD.JOB.NAMESPACE.svc``, from before it is ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": job.name,
            "namespace": job.namespace,
            "labels": {**MANAGED_BY, LABEL_JOB: job.name, LABEL_JOB_UID: job.uid},
            "ownerReferences": [owner_reference(job)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {LABEL_JOB: job.name, LABEL_JOB_UID: job.uid},
            "ports": [{"name": "agent", "port": AGENT_PORT, "targetPort": AGENT_PORT}],
        },
    }
