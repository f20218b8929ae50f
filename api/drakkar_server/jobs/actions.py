"""Changing TrainingJobs. Every change goes to the API server with the user's own token."""

import copy
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field

from drakkar.cli.manifests import problems
from drakkar.constants import API_VERSION
from drakkar.kube.rest import ApiError, Object
from drakkar.planning import PLAN_PORT, PlanAnswer, PlanRequest
from drakkar_server import objects
from drakkar_server.auth.caller import Asking, Caller
from drakkar_server.cluster.views import ANNOTATION_CREATED_BY
from drakkar_server.context import Context, Parts
from drakkar_server.jobs.router import path_of, read_job
from drakkar_server.names import Name, Namespace
from drakkar_server.problems import FieldProblem, ProblemError, as_problem, from_api

router = APIRouter(prefix="/api/v1", tags=["jobs"])
_OWN: Final = frozenset({"name", "namespace", "labels", "annotations"})
"""Parts of the metadata that a copy or a submission keeps."""


class Done(BaseModel):
    """What was done, in words."""

    namespace: str
    name: str
    message: str


class Validation(BaseModel):
    """What the API server and the operator say about a job that is not submitted."""

    job: dict[str, Any] = Field(description="The job as it would be stored, with defaults.")
    plan: PlanAnswer | None = Field(description="None where the operator can't be asked.")
    plan_problem: str = Field(default="", description="Why there is no plan.")


class Scale(BaseModel):
    """A new size; the job must be suspended, unless it is elastic already within it."""

    replicas: int = Field(ge=1, le=4096)


class Clone(BaseModel):
    """What is different in the copy."""

    name: str = Field(min_length=1, max_length=50)
    namespace: str | None = Field(default=None, max_length=63)
    spec: dict[str, Any] = Field(default_factory=dict, description="JSON merge patch of the spec.")
    restore_from: str | None = Field(
        default=None, max_length=512, description="Checkpoint folder that the copy starts from."
    )


class Reference(BaseModel):
    """One job."""

    namespace: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")


class Bulk(BaseModel):
    """The same for several jobs."""

    action: Literal["suspend", "resume", "delete"]
    jobs: list[Reference] = Field(min_length=1, max_length=200)


class Outcome(BaseModel):
    """What became of one of several."""

    namespace: str
    name: str
    done: bool
    message: str


Manifest = Annotated[
    dict[str, Any], Body(description="A TrainingJob, as one would kubectl apply it.")
]


def checked(manifest: Object, user: str) -> Object:
    """A submission with what we add. Raises ProblemError with a line per mistake."""
    meta = manifest.get("metadata")
    if manifest.get("kind") != "TrainingJob" or manifest.get("apiVersion") != API_VERSION:
        raise ProblemError(
            422, f"Submit a TrainingJob of {API_VERSION}.", kind="urn:drakkar:invalid"
        )
    if not isinstance(meta, dict) or not isinstance(meta.get("name"), str) or not meta["name"]:
        raise ProblemError(422, "metadata.name: give the job a name.", kind="urn:drakkar:invalid")
    where = meta.get("namespace", "default")
    annotations = meta.get("annotations") or {}
    if not isinstance(where, str) or not isinstance(annotations, dict):
        raise ProblemError(
            422, "metadata: namespace is a text, annotations an object.", kind="urn:drakkar:invalid"
        )
    found = problems(manifest)
    if found:
        errors = [
            FieldProblem(field=line.partition(": ")[0], message=line.partition(": ")[2])
            for line in found
        ]
        raise ProblemError(422, "; ".join(found[:5]), errors=errors, kind="urn:drakkar:invalid")
    kept = {key: value for key, value in meta.items() if key in _OWN}
    kept |= {"namespace": where, "annotations": {**annotations, ANNOTATION_CREATED_BY: user}}
    return {**{k: v for k, v in manifest.items() if k != "status"}, "metadata": kept}


async def create(caller: Caller, manifest: Object, *, dry_run: bool = False) -> Object:
    """Create a job. Raises ProblemError."""
    body = checked(manifest, caller.user.name)
    meta = body["metadata"]
    try:
        Reference(namespace=meta["namespace"], name=meta["name"])
    except ValueError:
        raise ProblemError(
            422,
            "metadata: names are lower-case letters, digits and '-', first a letter or digit.",
            kind="urn:drakkar:invalid",
        ) from None
    what = f"TrainingJob {meta['namespace']}/{meta['name']}"
    return await objects.create(caller, path_of(meta["namespace"]), body, what, dry_run=dry_run)


async def validated(caller: Caller, parts: Context, manifest: Object) -> Validation:
    """Judge a job and ask the operator where it would run. Raises ProblemError if it is refused."""
    job = await create(caller, manifest, dry_run=True)
    try:
        plan = await plan_of(caller, parts, [job])
    except ProblemError as error:
        return Validation(job=job, plan=None, plan_problem=error.details.detail)
    return Validation(job=job, plan=plan)


async def plan_of(caller: Caller, parts: Context, jobs: list[Object]) -> PlanAnswer:
    """The operator's plan, asked through the API server's proxy. Raises ProblemError."""
    namespace, _, service = parts.settings.operator.partition("/")
    path = f"/api/v1/namespaces/{namespace}/services/{service}:{PLAN_PORT}/proxy/plan"
    try:
        answer = await caller.rest.post(path, PlanRequest(jobs=jobs).wire())
        return PlanAnswer.model_validate(answer)
    except ApiError as error:
        raise from_api(error, f"Plans by service {parts.settings.operator}") from None
    except ValueError:
        raise ProblemError(502, "The operator's answer is of another version.") from None


async def patch(caller: Caller, namespace: str, name: str, change: Object, verb: str) -> None:
    """Change fields of a job by a merge patch. Raises ProblemError."""
    what = f"TrainingJob {namespace}/{name}"
    await objects.patch(caller, path_of(namespace, name), change, what, verb)


async def suspend(caller: Caller, namespace: str, name: str, on: bool) -> Done:
    """Let a job give up its pods after a checkpoint, or go on. Raises ProblemError."""
    await patch(caller, namespace, name, {"spec": {"suspend": on}}, "suspend" if on else "resume")
    text = "saves its state and gives up its pods" if on else "goes on as soon as there is room"
    return Done(namespace=namespace, name=name, message=f"{name} {text}")


async def delete(caller: Caller, namespace: str, name: str) -> Done:
    """Delete a job and its pods; checkpoints and history stay. Raises ProblemError."""
    await objects.delete(caller, path_of(namespace, name), f"TrainingJob {namespace}/{name}")
    return Done(
        namespace=namespace,
        name=name,
        message=f"{name} is deleted; its checkpoints and history stay",
    )


async def clone(caller: Caller, namespace: str, name: str, wanted: Clone) -> Object:
    """Submit a copy of a job. Raises ProblemError."""
    original = await read_job(caller, namespace, name)
    spec = merged(original["spec"], wanted.spec)
    spec.pop("suspend", None)
    if wanted.restore_from:
        checkpoint = spec.setdefault("checkpoint", {})
        checkpoint["restoreFrom"] = wanted.restore_from
    labels = original["metadata"].get("labels") or {}
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "metadata": {
            "name": wanted.name,
            "namespace": wanted.namespace or namespace,
            **({"labels": labels} if labels else {}),
        },
        "spec": spec,
    }
    return await create(caller, manifest)


def merged(into: Any, change: Any) -> Any:
    """A JSON merge patch (RFC 7386). Pure."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    found = copy.deepcopy(into) if isinstance(into, dict) else {}
    for key, value in change.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


async def each(caller: Caller, wanted: Bulk) -> list[Outcome]:
    """The same for several jobs; one that is refused does not stop the others."""
    outcomes = []
    for job in wanted.jobs:
        try:
            if wanted.action == "delete":
                done = await delete(caller, job.namespace, job.name)
            else:
                done = await suspend(caller, job.namespace, job.name, wanted.action == "suspend")
            outcome = (True, done.message)
        except (ProblemError, ApiError) as error:
            outcome = (False, as_problem(error).details.detail)
        outcomes.append(
            Outcome(namespace=job.namespace, name=job.name, done=outcome[0], message=outcome[1])
        )
    return outcomes


@router.post("/jobs", status_code=201)
async def submit(caller: Asking, manifest: Manifest) -> dict[str, Any]:
    """Submit a TrainingJob; answers with it as it was stored."""
    return await create(caller, manifest)


@router.post("/jobs/validate")
async def validate(caller: Asking, parts: Parts, manifest: Manifest) -> Validation:
    """Judge a job without submitting it, and say where it would run or what it would wait for."""
    return await validated(caller, parts, manifest)


@router.post("/jobs/bulk")
async def bulk(caller: Asking, wanted: Bulk) -> list[Outcome]:
    """Suspend, resume or delete several jobs."""
    return await each(caller, wanted)


@router.post("/jobs/{namespace}/{name}/suspend")
async def suspend_job(caller: Asking, namespace: Namespace, name: Name) -> Done:
    """Save the job's state and give up its pods until it is resumed."""
    return await suspend(caller, namespace, name, True)


@router.post("/jobs/{namespace}/{name}/resume")
async def resume_job(caller: Asking, namespace: Namespace, name: Name) -> Done:
    """Let a suspended job go on from its newest checkpoint."""
    return await suspend(caller, namespace, name, False)


@router.post("/jobs/{namespace}/{name}/scale")
async def scale_job(caller: Asking, namespace: Namespace, name: Name, wanted: Scale) -> Done:
    """Change the size of a suspended job."""
    await patch(caller, namespace, name, {"spec": {"replicas": wanted.replicas}}, "scale")
    return Done(namespace=namespace, name=name, message=f"{name} has {wanted.replicas} replicas")


@router.post("/jobs/{namespace}/{name}/clone", status_code=201)
async def clone_job(
    caller: Asking, namespace: Namespace, name: Name, wanted: Clone
) -> dict[str, Any]:
    """Submit a copy with another name and changed settings, from a checkpoint if one is named."""
    return await clone(caller, namespace, name, wanted)


@router.delete("/jobs/{namespace}/{name}")
async def delete_job(caller: Asking, namespace: Namespace, name: Name) -> Done:
    """Delete a job and its pods; its checkpoints and its history stay."""
    return await delete(caller, namespace, name)
