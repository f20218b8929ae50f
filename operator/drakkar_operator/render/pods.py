"""The pods of a gang, as dicts.

A job's template is the base where it has one. The trainer container is completed with the agent,
the facts of the gang, the rendezvous and the checkpoint volume; everything else in a template is
left as it is. Pods meet the restricted Pod Security Standard unless a template says otherwise.
"""

import copy
import json
from typing import Any, Final

from drakkar.constants import (
    AGENT_PORT,
    CHECKPOINT_MOUNT,
    LABEL_JOB,
    LABEL_JOB_UID,
    LABEL_QUEUE,
    LABEL_REPLICA,
    LABEL_ROLE,
    MANAGED_BY,
    RENDEZVOUS_PORT,
    ROLE_ENV,
    SHARES_ANNOTATION,
    TRAINER_CONTAINER,
)
from drakkar.protocol import GANG_ENV, GangConfig
from drakkar.v1alpha1.trainingjob import ObjectStore
from drakkar_operator.model import JobView
from drakkar_operator.render.owner import owner_reference
from drakkar_operator.render.parts import (
    RESTRICTED_CONTAINER,
    RESTRICTED_POD,
    SHARED_MEMORY,
    add_mount,
    add_named,
    downward,
    pin,
    thread_variable,
)
from drakkar_operator.render.settings import WorkerSettings

GRACE_SECONDS: Final = 30
"""Time from SIGTERM to SIGKILL: enough to finish a step and save."""
AGENT_MARGIN_SECONDS: Final = 5
"""What the agent keeps of that for itself: to tell how it ended."""
DEFAULT_REQUESTS: Final = {"cpu": "500m", "memory": "1Gi"}
"""Of a recipe's pod that asks for nothing: placement needs something to count."""


def pod_name(job_name: str, replica: int) -> str:
    """Name and hostname of a replica's pod; being fixed, it can't exist twice."""
    return f"{job_name}-{replica}"


def coordinator_name(job: JobView, settings: WorkerSettings) -> str:
    """DNS name of replica 0 for its peers; a gang of one has no service that would resolve it."""
    if job.replicas == 1:
        return "localhost"
    return f"{pod_name(job.name, 0)}.{job.name}.{job.namespace}.svc.{settings.cluster_domain}"


def gang_config(job: JobView, settings: WorkerSettings) -> GangConfig:
    """What the agents of a gang are told."""
    spec = job.spec
    root, folder = _checkpoints(job)
    return GangConfig(
        job=job.name,
        namespace=job.namespace,
        uid=job.uid,
        replicas=job.replicas,
        processes_per_replica=spec.processes_per_replica,
        coordinator=coordinator_name(job, settings),
        recipe=spec.recipe.name if spec.recipe else None,
        recipe_config=spec.recipe.config if spec.recipe else {},
        checkpoint_dir=folder,
        checkpoint_root=root,
        checkpoint_every=spec.checkpoint.every_steps,
        checkpoint_keep=spec.checkpoint.keep,
        memory_every=spec.checkpoint.memory_every_steps,
        restore_from=spec.checkpoint.restore_from,
        in_place_restarts=spec.fault_tolerance.in_place_restarts,
        backoff_seconds=spec.fault_tolerance.backoff_seconds,
        hang_timeout_seconds=spec.fault_tolerance.hang_timeout_seconds,
    )


def _checkpoints(job: JobView) -> tuple[str | None, str | None]:
    """Where checkpoints of all jobs of this storage begin, and the folder of this job's."""
    storage = job.spec.checkpoint.storage
    if storage is None:
        return None, None
    if claim := storage.persistent_volume_claim:
        return CHECKPOINT_MOUNT, f"{CHECKPOINT_MOUNT}/{claim.sub_path or job.name}"
    assert storage.object_store is not None
    root = storage.object_store.url.rstrip("/")
    # A bucket may be shared by namespaces, a claim is not.
    return root, f"{root}/{job.namespace}/{job.name}"


def training_pod(
    job: JobView, replica: int, node: str, settings: WorkerSettings, *, pinned: bool = False
) -> dict[str, Any]:
    """The pod of one replica on its node.

    ``pinned`` leaves the binding to kube-scheduler and allows it this node alone; otherwise the pod
    is bound as it is created.
    """
    role = job.spec.role_of(replica)
    template = copy.deepcopy((role.template if role else None) or job.spec.template or {})
    metadata: dict[str, Any] = template.get("metadata") or {}
    spec: dict[str, Any] = template.get("spec") or {}
    _complete_pod(spec, job, replica, settings)
    grace = spec["terminationGracePeriodSeconds"]
    _complete_trainer(_trainer(spec), job, replica, settings, grace=grace)
    if pinned:
        pin(spec, node)
    else:
        spec["nodeName"] = node
    labels = {
        "app.kubernetes.io/name": "trainingjob",
        "app.kubernetes.io/instance": job.name,
        **(metadata.get("labels") or {}),
        **MANAGED_BY,
        LABEL_JOB: job.name,
        LABEL_JOB_UID: job.uid,
        LABEL_REPLICA: str(replica),
        **({LABEL_ROLE: role.name} if role else {}),
        **({LABEL_QUEUE: job.spec.queue} if job.spec.queue else {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(job.name, replica),
            "namespace": job.namespace,
            "labels": labels,
            "annotations": {**(metadata.get("annotations") or {}), **_device_shares(job, replica)},
            "ownerReferences": [owner_reference(job)],
        },
        "spec": spec,
    }


def _device_shares(job: JobView, replica: int) -> dict[str, str]:
    """Tells the device plugin which parts of which devices the placement gives the pod."""
    placement = job.status.placement
    found: dict[str, dict[str, int]] = {}
    for share in placement.shares if placement is not None else ():
        if share.replica == replica:
            found.setdefault(share.resource, {})[str(share.device)] = share.thousandths
    return {SHARES_ANNOTATION: json.dumps(found)} if found else {}


def _trainer(spec: dict[str, Any]) -> dict[str, Any]:
    containers: list[dict[str, Any]] = spec.setdefault("containers", [])
    for container in containers:
        if container.get("name") == TRAINER_CONTAINER:
            return container
    if not containers:
        containers.append({"name": TRAINER_CONTAINER})
    return containers[0]


def _complete_pod(
    spec: dict[str, Any], job: JobView, replica: int, settings: WorkerSettings
) -> None:
    spec["restartPolicy"] = "Never"
    spec["hostname"] = pod_name(job.name, replica)
    spec["subdomain"] = job.name
    spec.setdefault("terminationGracePeriodSeconds", GRACE_SECONDS)
    spec.setdefault("automountServiceAccountToken", False)
    spec.setdefault("enableServiceLinks", False)
    spec["securityContext"] = {**RESTRICTED_POD, **(spec.get("securityContext") or {})}
    if settings.runtime_class:
        spec.setdefault("runtimeClassName", settings.runtime_class)
    if job.spec.priority_class_name:
        spec.setdefault("priorityClassName", job.spec.priority_class_name)
    volumes: list[dict[str, Any]] = spec.setdefault("volumes", [])
    add_named(volumes, {"name": "tmp", "emptyDir": {}})
    add_named(volumes, {"name": "shm", "emptyDir": dict(SHARED_MEMORY)})
    if claim := _claim(job):
        add_named(volumes, {"name": "checkpoints", "persistentVolumeClaim": {"claimName": claim}})


def _complete_trainer(
    container: dict[str, Any], job: JobView, replica: int, settings: WorkerSettings, *, grace: int
) -> None:
    container.setdefault("image", job.spec.image or settings.image)
    if settings.pull_policy:
        container.setdefault("imagePullPolicy", settings.pull_policy)
    container["securityContext"] = {
        **RESTRICTED_CONTAINER,
        **(container.get("securityContext") or {}),
    }
    container.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    _complete_resources(container, job, replica)
    mounts: list[dict[str, Any]] = container.setdefault("volumeMounts", [])
    add_mount(mounts, {"name": "tmp", "mountPath": "/tmp"})
    add_mount(mounts, {"name": "shm", "mountPath": "/dev/shm"})
    if _claim(job):
        add_mount(mounts, {"name": "checkpoints", "mountPath": CHECKPOINT_MOUNT})
    bucket = _bucket(job)
    if bucket is not None and bucket.secret_name:
        container.setdefault("envFrom", []).append({"secretRef": {"name": bucket.secret_name}})
    environment = container.setdefault("env", [])
    variables = [
        *_environment(job, replica, settings),
        *thread_variable(container, job.spec.processes_per_replica),
        {"name": "DRAKKAR_GRACE_SECONDS", "value": str(max(1, grace - AGENT_MARGIN_SECONDS))},
    ]
    for variable in variables:
        add_named(environment, variable)
    if job.spec.runtime == "torch":
        command = [*(container.get("command") or ()), *(container.get("args") or ())]
        container["command"] = [settings.python, "-m", "drakkar_workers.agent"]
        container["args"] = ["--", *command] if command else []
        add_named(container.setdefault("ports", []), {"name": "agent", "containerPort": AGENT_PORT})


def _claim(job: JobView) -> str | None:
    storage = job.spec.checkpoint.storage
    claim = storage.persistent_volume_claim if storage else None
    return claim.claim_name if claim else None


def _bucket(job: JobView) -> ObjectStore | None:
    storage = job.spec.checkpoint.storage
    return storage.object_store if storage else None


def _complete_resources(container: dict[str, Any], job: JobView, replica: int) -> None:
    resources: dict[str, Any] = container.setdefault("resources", {})
    wanted = job.spec.role_of(replica) or job.spec
    given = wanted.resources or {}
    for kind in ("requests", "limits"):
        resources[kind] = {**given.get(kind, {}), **(resources.get(kind) or {})}
    if devices := wanted.accelerators:
        # Kubernetes wants extended resources as limits, and requests equal to them.
        for kind in ("requests", "limits"):
            resources[kind].setdefault(devices.resource, devices.count)
    if job.spec.recipe:
        for name, quantity in DEFAULT_REQUESTS.items():
            resources["requests"].setdefault(name, resources["limits"].get(name, quantity))


def _environment(job: JobView, replica: int, settings: WorkerSettings) -> list[dict[str, Any]]:
    variables: list[dict[str, Any]] = [
        {"name": GANG_ENV, "value": gang_config(job, settings).model_dump_json(by_alias=True)},
        {"name": "DRAKKAR_REPLICA_INDEX", "value": str(replica)},
        downward("DRAKKAR_POD_NAME", "metadata.name"),
        downward("DRAKKAR_POD_UID", "metadata.uid"),
        downward("DRAKKAR_NODE_NAME", "spec.nodeName"),
        {"name": "HOME", "value": "/tmp"},
    ]
    if (bucket := _bucket(job)) and bucket.endpoint:
        variables.append({"name": "AWS_ENDPOINT_URL", "value": bucket.endpoint})
    if role := job.spec.role_of(replica):
        variables.append({"name": ROLE_ENV, "value": role.name})
    if job.spec.runtime == "plain":
        variables += [
            {"name": "RANK", "value": str(replica)},
            {"name": "WORLD_SIZE", "value": str(job.replicas)},
            {"name": "MASTER_ADDR", "value": coordinator_name(job, settings)},
            {"name": "MASTER_PORT", "value": str(RENDEZVOUS_PORT)},
        ]
    return variables
