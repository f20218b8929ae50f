"""The pods of a service's replicas, as dicts.

The service's template is the base where it has one. The server container is completed with the
runtime's command line, its probes, the model and the adapters; everything else in a template is left
as it is. Pods meet the restricted Pod Security Standard unless a template says otherwise.
"""

import copy
from typing import Any, Final

from drakkar.constants import (
    ADAPTER_MOUNT,
    CACHE_MOUNT,
    LABEL_MEMBER,
    LABEL_QUEUE,
    LABEL_REPLICA,
    LABEL_REVISION,
    LABEL_SERVICE,
    LABEL_SERVICE_UID,
    MANAGED_BY,
    MODEL_MOUNT,
    SERVER_CONTAINER,
)
from drakkar.v1alpha1.inferenceservice import InferenceServiceSpec, Revision
from drakkar_operator.model import ServiceView
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
from drakkar_operator.render.serving.objects import owner, servers_name
from drakkar_operator.render.serving.runtimes import (
    DRAIN_DELAY_SECONDS,
    Start,
    cache_variables,
    command,
    model_location,
    probes,
)
from drakkar_operator.render.settings import WorkerSettings

GRACE_MARGIN_SECONDS: Final = 15
"""Between the end of a server's drain and SIGKILL."""
DEFAULT_REQUESTS: Final = {"cpu": "500m", "memory": "1Gi"}
"""Of a server that asks for nothing: placement needs something to count."""


def server_pod_name(service: str, member: str, rank: int, pods: int) -> str:
    """Name and hostname of a pod of a replica; being fixed, it can't exist twice."""
    name = f"{service}-serve-{member}"
    return name if pods == 1 else f"{name}-{rank}"


def server_pod(
    service: ServiceView,
    spec: InferenceServiceSpec,
    revision: Revision,
    member: str,
    rank: int,
    node: str,
    settings: WorkerSettings,
    *,
    pinned: bool = False,
) -> dict[str, Any]:
    """The pod with index ``rank`` of a replica, on its node.

    ``spec`` is the service's with the revision's part. ``pinned`` leaves the binding to
    kube-scheduler and allows it this node alone; otherwise the pod is bound as it is created.
    """
    template = copy.deepcopy(spec.template or {})
    metadata: dict[str, Any] = template.get("metadata") or {}
    pod: dict[str, Any] = template.get("spec") or {}
    _complete_pod(pod, service, spec, revision, member, rank, settings)
    _complete_server(_server(pod), service, spec, revision, member, rank, settings)
    if pinned:
        pin(pod, node)
    elif node:
        pod["nodeName"] = node
    labels = {
        "app.kubernetes.io/name": "inferenceservice",
        "app.kubernetes.io/instance": service.name,
        **(metadata.get("labels") or {}),
        **MANAGED_BY,
        LABEL_SERVICE: service.name,
        LABEL_SERVICE_UID: service.uid,
        LABEL_MEMBER: member,
        LABEL_REVISION: revision.name,
        LABEL_REPLICA: str(rank),
        **({LABEL_QUEUE: spec.queue} if spec.queue else {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": server_pod_name(service.name, member, rank, spec.parallelism.pods),
            "namespace": service.namespace,
            "labels": labels,
            "annotations": dict(metadata.get("annotations") or {}),
            "ownerReferences": [owner(service)],
        },
        "spec": pod,
    }


def _server(pod: dict[str, Any]) -> dict[str, Any]:
    containers: list[dict[str, Any]] = pod.setdefault("containers", [])
    for container in containers:
        if container.get("name") == SERVER_CONTAINER:
            return container
    if not containers:
        containers.append({"name": SERVER_CONTAINER})
    return containers[0]


def _complete_pod(
    pod: dict[str, Any],
    service: ServiceView,
    spec: InferenceServiceSpec,
    revision: Revision,
    member: str,
    rank: int,
    settings: WorkerSettings,
) -> None:
    pod["restartPolicy"] = "Always"
    pod["hostname"] = server_pod_name(service.name, member, rank, spec.parallelism.pods)
    pod["subdomain"] = servers_name(service.name)
    pod.setdefault(
        "terminationGracePeriodSeconds",
        spec.rollout.drain_seconds + DRAIN_DELAY_SECONDS + GRACE_MARGIN_SECONDS,
    )
    pod.setdefault("automountServiceAccountToken", False)
    pod.setdefault("enableServiceLinks", False)
    pod["securityContext"] = {**RESTRICTED_POD, **(pod.get("securityContext") or {})}
    if settings.runtime_class and spec.runtime.name == "drakkar":
        pod.setdefault("runtimeClassName", settings.runtime_class)
    if spec.priority_class_name:
        pod.setdefault("priorityClassName", spec.priority_class_name)
    volumes: list[dict[str, Any]] = pod.setdefault("volumes", [])
    add_named(volumes, {"name": "tmp", "emptyDir": {}})
    add_named(volumes, {"name": "shm", "emptyDir": dict(SHARED_MEMORY)})
    for volume in _volumes(spec, revision):
        add_named(volumes, volume)


def _volumes(spec: InferenceServiceSpec, revision: Revision) -> list[dict[str, Any]]:
    """The volumes of model, adapters and cache, each claim once: kubelets mount no claim twice."""
    names = _claims(spec, revision)
    written = spec.model.cache.claim_name if spec.model.cache else None
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "persistentVolumeClaim": {"claimName": claim, "readOnly": claim != written},
        }
        for claim, name in names.items()
    ]
    if spec.model.oci is not None:
        image = {"reference": spec.model.oci.image, "pullPolicy": "IfNotPresent"}
        found.append({"name": "model", "image": image})
    return found


def _claims(spec: InferenceServiceSpec, revision: Revision) -> dict[str, str]:
    """Name of the volume per claim: that of the first that it is for."""
    found: dict[str, str] = {}
    for name, claim in (
        ("model", spec.model.pvc.claim_name if spec.model.pvc else revision.model_claim),
        ("adapters", spec.adapters.claim_name if spec.adapters else None),
        ("cache", spec.model.cache.claim_name if spec.model.cache else None),
    ):
        if claim is not None:
            found.setdefault(claim, name)
    return found


def _mounts(spec: InferenceServiceSpec, revision: Revision) -> list[dict[str, Any]]:
    """Where the server finds its volumes."""
    names = _claims(spec, revision)
    found: list[dict[str, Any]] = []
    if spec.model.oci is not None or "model" in names.values():
        found.append({"name": "model", "mountPath": MODEL_MOUNT, "readOnly": True})
    for item in spec.adapters.items if spec.adapters else ():
        assert spec.adapters is not None
        name, at = names[spec.adapters.claim_name], f"{ADAPTER_MOUNT}/{item.name}"
        found.append({"name": name, "mountPath": at, "subPath": item.path, "readOnly": True})
    if (cache := spec.model.cache) is not None:
        part = {"subPath": cache.path} if cache.path else {}
        found.append({"name": names[cache.claim_name], "mountPath": CACHE_MOUNT, **part})
    return found


def _complete_server(
    container: dict[str, Any],
    service: ServiceView,
    spec: InferenceServiceSpec,
    revision: Revision,
    member: str,
    rank: int,
    settings: WorkerSettings,
) -> None:
    runtime = spec.runtime
    container.setdefault("image", runtime.image or settings.image)
    if settings.pull_policy and runtime.image is None:
        container.setdefault("imagePullPolicy", settings.pull_policy)
    container["securityContext"] = {
        **RESTRICTED_CONTAINER,
        **(container.get("securityContext") or {}),
    }
    container.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    _complete_resources(container, spec)
    mounts: list[dict[str, Any]] = container.setdefault("volumeMounts", [])
    add_mount(mounts, {"name": "tmp", "mountPath": "/tmp"})
    add_mount(mounts, {"name": "shm", "mountPath": "/dev/shm"})
    for mount in _mounts(spec, revision):
        add_mount(mounts, mount)
    model = model_location(spec, revision.model_path)
    leader = server_pod_name(service.name, member, 0, spec.parallelism.pods)
    domain = f"{servers_name(service.name)}.{service.namespace}.svc.{settings.cluster_domain}"
    start = Start(
        spec, spec.model.name or service.name, model, rank, f"{leader}.{domain}", settings.python
    )
    words = command(start)
    if runtime.name != "custom" or runtime.command:
        container["command"] = words
        container.pop("args", None)
    elif words:
        container["args"] = words
    environment = container.setdefault("env", [])
    for variable in _environment(start, container):
        add_named(environment, variable)
    sources = [one.secret_name for one in (spec.model.hf, spec.model.s3) if one is not None]
    for secret in filter(None, sources):
        container.setdefault("envFrom", []).append({"secretRef": {"name": secret}})
    for name, probe in probes(spec, rank).items():
        container.setdefault(name, probe)
    if runtime.name != "drakkar":
        # Drakkar's own server goes on taking requests for a moment after SIGTERM.
        sleep = {"preStop": {"sleep": {"seconds": DRAIN_DELAY_SECONDS}}}
        container.setdefault("lifecycle", sleep)
    port = {"name": "http", "containerPort": runtime.port}
    add_named(container.setdefault("ports", []), port)


def _complete_resources(container: dict[str, Any], spec: InferenceServiceSpec) -> None:
    resources: dict[str, Any] = container.setdefault("resources", {})
    given = spec.resources or {}
    for kind in ("requests", "limits"):
        resources[kind] = {**given.get(kind, {}), **(resources.get(kind) or {})}
    if devices := spec.accelerators:
        # Kubernetes wants extended resources as limits, and requests equal to them.
        for kind in ("requests", "limits"):
            resources[kind].setdefault(devices.resource, devices.count)
    for name, quantity in DEFAULT_REQUESTS.items():
        resources["requests"].setdefault(name, resources["limits"].get(name, quantity))


def _environment(start: Start, container: dict[str, Any]) -> list[dict[str, Any]]:
    spec = start.spec
    variables: list[dict[str, Any]] = [
        {"name": variable.name, "value": variable.value} for variable in spec.runtime.env
    ]
    variables += [
        {"name": "DRAKKAR_MODEL", "value": start.model},
        {"name": "DRAKKAR_MODEL_NAME", "value": start.name},
        {"name": "DRAKKAR_REPLICA_INDEX", "value": str(start.rank)},
        {"name": "DRAKKAR_REPLICA_PODS", "value": str(start.pods)},
        {"name": "DRAKKAR_LEADER", "value": start.leader},
        downward("DRAKKAR_POD_NAME", "metadata.name"),
        {"name": "HOME", "value": "/tmp"},
    ]
    variables += [{"name": name, "value": at} for name, at in cache_variables(spec).items()]
    if spec.model.s3 is not None and spec.model.s3.endpoint:
        variables.append({"name": "AWS_ENDPOINT_URL", "value": spec.model.s3.endpoint})
    return variables + thread_variable(container, 1)
