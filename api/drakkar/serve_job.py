"""From a finished run to a service: the InferenceService that serves a TrainingJob's checkpoint. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from drakkar.constants import API_VERSION

LONGEST_NAME: Final = 40
"""Characters of an InferenceService's name (its kind's rule)."""


class NothingToServeError(ValueError):
    """The job leaves nothing that could be served; the message says why and what to do."""


def service_of_job(
    job: Mapping[str, Any],
    *,
    name: str | None = None,
    step: int | None = None,
    replicas: int = 1,
    scaling: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Manifest of a service of the job's checkpoint: that of ``step``, or the newest one.

    Each replica gets one accelerator if the job has some, and the CPU and memory of one of its
    replicas; the queue is the job's. ``scaling``: (fewest, most) replicas instead of ``replicas``.
    Raises NothingToServeError.
    """
    meta, spec = job["metadata"], job.get("spec") or {}
    if not (spec.get("checkpoint") or {}).get("storage"):
        raise NothingToServeError(
            f"TrainingJob {meta['name']} keeps no checkpoints: it has no checkpoint.storage. "
            "Run it again with one."
        )
    source: dict[str, Any] = {"name": meta["name"]}
    if step is not None:
        source["step"] = step
    made: dict[str, Any] = {"model": {"trainingJob": source}}
    if spec.get("accelerators"):
        made["accelerators"] = {"resource": spec["accelerators"]["resource"], "count": 1}
    for field in ("resources", "queue"):
        if spec.get(field):
            made[field] = spec[field]
    if scaling is not None:
        made["scaling"] = {"min": scaling[0], "max": scaling[1]}
    else:
        made["replicas"] = replicas
    where = {"namespace": meta["namespace"]} if meta.get("namespace") else {}
    return {
        "apiVersion": API_VERSION,
        "kind": "InferenceService",
        "metadata": {"name": name or meta["name"][:LONGEST_NAME].rstrip("-"), **where},
        "spec": made,
    }
