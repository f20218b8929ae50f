"""TrainingJobs as the operator knows them: fed by kopf's watch, checked against lists."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from drakkar.kube.informer import list_into
from drakkar.kube.rest import Object, Rest
from drakkar.kube.store import Store, object_key
from drakkar.v1alpha1.trainingjob import TrainingJobSpec, TrainingJobStatus
from drakkar_operator.cluster import paths
from drakkar_operator.cluster.project import epoch
from drakkar_operator.model import JobView


def project_job(raw: Object) -> JobView:
    """A TrainingJob; a spec that can't be used becomes ``problem``, in words for its author."""
    meta: Mapping[str, Any] = raw["metadata"]
    spec, problem = TrainingJobSpec(), None
    try:
        spec = TrainingJobSpec.model_validate(raw.get("spec") or {})
    except ValidationError as error:
        problem = explain(error, "spec")
    try:
        status = TrainingJobStatus.model_validate(raw.get("status") or {})
    except ValidationError:
        # Only the operator writes it. What a version unknown to this one wrote is found anew.
        status = TrainingJobStatus()
    return JobView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=int(meta.get("generation") or 0),
        created=epoch(meta["creationTimestamp"]) if meta.get("creationTimestamp") else 0.0,
        spec=spec,
        status=status,
        deleting="deletionTimestamp" in meta,
        problem=problem,
        raw={"metadata": slim(meta), "status": raw.get("status") or {}},
    )


def explain(error: ValidationError, root: str) -> str:
    """One line per problem: the field's path, what is wrong, what was found."""
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in (root, *item["loc"]))
        found = item["input"]
        shown = "" if isinstance(found, dict | list | BaseModel) else f" (found {found!r:.80})"
        lines.append(f"{path}: {item['msg'].removeprefix('Value error, ')}{shown}")
    return "; ".join(lines)


def slim(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as far as writes need it."""
    kept = ("namespace", "name", "uid", "resourceVersion", "generation")
    return {name: meta[name] for name in kept if name in meta}


class Jobs(Store[JobView]):
    """The store of TrainingJobs. It has no watch of its own: ``take`` is called by kopf's."""

    def __init__(self, rest: Rest, namespaces: Sequence[str] = ()) -> None:
        """``namespaces`` are the ones that are looked after; none: all."""
        super().__init__("trainingjobs", project_job)
        self._rest = rest
        self._namespaces = tuple(namespaces)

    def take(self, kind: str | None, raw: Object) -> None:
        """A watch event: kind is ADDED, MODIFIED, DELETED, or None for the first list."""
        if kind == "DELETED":
            self.delete(object_key(raw), raw["metadata"]["uid"])
        else:
            self.upsert(raw)

    async def resync(self) -> None:
        """Compare with a full list: a watch may have died silently. Raises ApiError."""
        if not self._namespaces:
            await list_into(self._rest, paths.TRAINING_JOBS, self)
        for namespace in self._namespaces:
            await list_into(
                self._rest, paths.training_jobs(namespace), self, prefix=f"{namespace}/"
            )
