"""Changing InferenceServices. Every change goes to the API server with the user's own token."""

from typing import Annotated, Any, Final, Self

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field, model_validator

from drakkar.cli.manifests import problems
from drakkar.constants import API_VERSION
from drakkar.kube.rest import Object
from drakkar.v1alpha1.inferenceservice import REVISION_PARTS, InferenceServiceSpec
from drakkar_server import objects
from drakkar_server.auth.caller import Asking, Caller
from drakkar_server.cluster.views import ANNOTATION_CREATED_BY
from drakkar_server.jobs.actions import Done, Reference
from drakkar_server.names import Name, Namespace
from drakkar_server.problems import FieldProblem, ProblemError
from drakkar_server.services.router import path_of, read_service

router = APIRouter(prefix="/api/v1", tags=["services"])
_INVALID: Final = "urn:drakkar:invalid"
Manifest = Annotated[
    dict[str, Any], Body(description="An InferenceService, as one would kubectl apply it.")
]
Size = Annotated[int, Field(ge=0, le=1000)]


class ServiceScale(BaseModel):
    """A number of replicas or, where the operator scales, its bounds."""

    replicas: Size | None = None
    min: Size | None = None
    max: Annotated[int, Field(ge=1, le=1000)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.replicas is None) == (self.min is None and self.max is None):
            raise ValueError("write replicas, or min and max of a service with spec.scaling")
        return self


def checked(manifest: Object, user: str) -> Object:
    """A submission with what we add. Raises ProblemError with a line per mistake."""
    meta = manifest.get("metadata")
    if manifest.get("kind") != "InferenceService" or manifest.get("apiVersion") != API_VERSION:
        raise ProblemError(422, f"Write an InferenceService of {API_VERSION}.", kind=_INVALID)
    if not isinstance(meta, dict):
        raise ProblemError(422, "metadata.name: give the service a name.", kind=_INVALID)
    annotations = meta.get("annotations") or {}
    try:
        at = Reference(namespace=meta.get("namespace", "default"), name=meta.get("name", ""))
    except ValueError:
        raise ProblemError(
            422, "metadata: names are lower-case letters, digits and '-', first a letter.",
            kind=_INVALID,
        ) from None  # fmt: skip
    if not isinstance(annotations, dict):
        raise ProblemError(422, "metadata.annotations: write an object.", kind=_INVALID)
    found = problems(manifest)
    if found:
        errors = [
            FieldProblem(field=line.partition(": ")[0], message=line.partition(": ")[2])
            for line in found
        ]
        raise ProblemError(422, "; ".join(found[:5]), errors=errors, kind=_INVALID)
    return {
        "apiVersion": API_VERSION,
        "kind": "InferenceService",
        "metadata": {
            "name": at.name,
            "namespace": at.namespace,
            "labels": meta.get("labels") or {},
            "annotations": {**annotations, ANNOTATION_CREATED_BY: user},
        },
        "spec": manifest["spec"],
    }


async def create(caller: Caller, manifest: Object, *, dry_run: bool = False) -> Object:
    """Create a service. Raises ProblemError."""
    body = checked(manifest, caller.user.name)
    what = f"InferenceService {body['metadata']['namespace']}/{body['metadata']['name']}"
    return await objects.create(
        caller, path_of(body["metadata"]["namespace"]), body, what, dry_run=dry_run
    )


async def _patch(
    caller: Caller, namespace: str, name: str, change: Object, verb: str, subresource: str = ""
) -> None:
    what = f"InferenceService {namespace}/{name}"
    path = path_of(namespace, name) + (f"/{subresource}" if subresource else "")
    await objects.patch(caller, path, change, what, verb)


async def scale(caller: Caller, namespace: str, name: str, wanted: ServiceScale) -> Done:
    """Change the number of replicas, or what the operator's scaling keeps to. Raises ProblemError."""
    if wanted.replicas is not None:
        change: Object = {"spec": {"replicas": wanted.replicas}}
        await _patch(caller, namespace, name, change, "scale", "scale")
        said = f"{name} is to have {wanted.replicas} replicas"
    else:
        raw = await read_service(caller, namespace, name)
        bounds = (raw.get("spec") or {}).get("scaling")
        if not bounds:
            raise ProblemError(
                409, f"{name} has no spec.scaling: set replicas instead.", kind=_INVALID
            )
        given = {"min": wanted.min, "max": wanted.max}
        scaling = {key: value for key, value in given.items() if value is not None}
        await _patch(caller, namespace, name, {"spec": {"scaling": scaling}}, "scale")
        fewest, most = ({"min": 1, **bounds, **scaling}[key] for key in ("min", "max"))
        said = f"{name} is scaled between {fewest} and {most} replicas"
    return Done(namespace=namespace, name=name, message=said)


async def promote(caller: Caller, namespace: str, name: str) -> Done:
    """Let the revision that is tried take over: without spec.canary it does. Raises ProblemError."""
    raw = await read_service(caller, namespace, name)
    canary = (raw.get("status") or {}).get("canary") or {}
    if not (raw.get("spec") or {}).get("canary") or canary.get("state") not in (
        "Starting",
        "Running",
    ):
        raise ProblemError(409, f"{name} tries no new revision now.", kind="urn:drakkar:no-canary")
    await _patch(caller, namespace, name, _at(raw, {"canary": None}), "promote")
    return Done(
        namespace=namespace,
        name=name,
        message=f"Revision {canary.get('revision')} takes over; spec.canary is removed",
    )


async def roll_back(caller: Caller, namespace: str, name: str) -> Done:
    """Give the spec back what the stable revision was made of. Raises ProblemError."""
    raw = await read_service(caller, namespace, name)
    stable, change = going_back(raw)
    if not change:
        raise ProblemError(
            409, f"{name}: the spec is that of the stable revision already.",
            kind="urn:drakkar:no-update",
        )  # fmt: skip
    await _patch(caller, namespace, name, _at(raw, change), "rollback")
    return Done(namespace=namespace, name=name, message=f"{name} goes back to revision {stable}")


def _at(raw: Object, spec: Object) -> Object:
    """A change of the spec that counts for the object as it was read."""
    return {"metadata": {"resourceVersion": raw["metadata"]["resourceVersion"]}, "spec": spec}


def going_back(raw: Object) -> tuple[str, Object]:
    """(the stable revision, merge patch of the spec that leads back to it); empty: nothing to do. Pure."""
    status, spec = raw.get("status") or {}, raw.get("spec") or {}
    stable = str(status.get("stableRevision") or "")
    kept = next((r for r in status.get("revisions") or () if r.get("name") == stable), None)
    try:
        # As the operator keeps it: without what the API server filled in.
        plain = InferenceServiceSpec.model_validate(spec).wire()
    except ValueError:
        plain = spec
    if kept is None or _parts(plain) == kept.get("spec"):
        return stable, {}
    return stable, difference(_parts(spec), kept.get("spec") or {})


def _parts(spec: Object) -> Object:
    return {part: spec[part] for part in REVISION_PARTS if part in spec}


def difference(now: Object, wanted: Object) -> Object:
    """The JSON merge patch (RFC 7386) that makes one object the other. Pure."""
    change: Object = {key: None for key in now if key not in wanted}
    for key, value in wanted.items():
        old = now.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            if inner := difference(old, value):
                change[key] = inner
        elif key not in now or old != value:
            change[key] = value
    return change


async def delete(caller: Caller, namespace: str, name: str) -> Done:
    """Delete a service, its router and its replicas. Raises ProblemError."""
    await objects.delete(caller, path_of(namespace, name), f"InferenceService {namespace}/{name}")
    return Done(namespace=namespace, name=name, message=f"{name} is deleted; its model stays")


@router.post("/services", status_code=201)
async def submit(caller: Asking, manifest: Manifest) -> dict[str, Any]:
    """Create an InferenceService; answers with it as it was stored."""
    return await create(caller, manifest)


@router.post("/services/validate")
async def validate(caller: Asking, manifest: Manifest) -> dict[str, Any]:
    """Judge a service without creating it; answers with it as it would be stored."""
    return await create(caller, manifest, dry_run=True)


@router.post("/services/{namespace}/{name}/scale")
async def scale_service(
    caller: Asking, namespace: Namespace, name: Name, wanted: ServiceScale
) -> Done:
    """Change the replicas, or the bounds of the operator's scaling."""
    return await scale(caller, namespace, name, wanted)


@router.post("/services/{namespace}/{name}/promote")
async def promote_service(caller: Asking, namespace: Namespace, name: Name) -> Done:
    """Let the canary take over now, by removing spec.canary."""
    return await promote(caller, namespace, name)


@router.post("/services/{namespace}/{name}/rollback")
async def roll_service_back(caller: Asking, namespace: Namespace, name: Name) -> Done:
    """Give up an update that is under way: the spec becomes that of the stable revision."""
    return await roll_back(caller, namespace, name)


@router.delete("/services/{namespace}/{name}")
async def delete_service(caller: Asking, namespace: Namespace, name: Name) -> Done:
    """Delete a service, its router and its replicas."""
    return await delete(caller, namespace, name)
