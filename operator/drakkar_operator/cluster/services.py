"""InferenceServices as the operator knows them: fed by kopf's watch, checked against lists."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from drakkar.kube.informer import list_into
from drakkar.kube.rest import ApiError, Object, Rest
from drakkar.kube.store import Store, object_key
from drakkar.v1alpha1.inferenceservice import InferenceServiceSpec, InferenceServiceStatus
from drakkar.v1alpha1.serving import ServedModel
from drakkar_operator.cluster import paths
from drakkar_operator.cluster.jobs import explain, slim
from drakkar_operator.cluster.project import epoch
from drakkar_operator.model import ServiceView


def project_service(raw: Object) -> ServiceView:
    """An InferenceService; a spec that can't be used becomes ``problem``, in words for its author."""
    meta: Mapping[str, Any] = raw["metadata"]
    spec, problem = InferenceServiceSpec(model=ServedModel()), None
    try:
        spec = InferenceServiceSpec.model_validate(raw.get("spec") or {})
    except ValidationError as error:
        problem = explain(error, "spec")
    try:
        status = InferenceServiceStatus.model_validate(raw.get("status") or {})
    except ValidationError:
        # Only the operator writes it: what is understood of it is all that it needs.
        status = InferenceServiceStatus()
    return ServiceView(
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


class Services(Store[ServiceView]):
    """The store of InferenceServices. It has no watch of its own: ``take`` is called by kopf's."""

    def __init__(self, rest: Rest, namespaces: Sequence[str] = ()) -> None:
        """``namespaces`` are the ones that are looked after; none: all."""
        super().__init__("inferenceservices", project_service)
        self._rest = rest
        self._namespaces = tuple(namespaces)

    def take(self, kind: str | None, raw: Object) -> None:
        """A watch event: kind is ADDED, MODIFIED, DELETED, or None for the first list."""
        if kind == "DELETED":
            self.delete(object_key(raw), raw["metadata"]["uid"])
        else:
            self.upsert(raw)

    async def resync(self) -> None:
        """Compare with a full list. Raises ApiError, but for a cluster that lacks the kind."""
        try:
            if not self._namespaces:
                await list_into(self._rest, paths.INFERENCE_SERVICES, self)
            for namespace in self._namespaces:
                path = paths.inference_services(namespace)
                await list_into(self._rest, path, self, prefix=f"{namespace}/")
        except ApiError as error:
            # Helm does not add a kind to a cluster that an older version was installed on.
            if error.status != 404:
                raise
