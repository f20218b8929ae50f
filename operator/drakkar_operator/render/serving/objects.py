"""What a service has besides its servers' pods: the router, Services, disruption budgets."""

from typing import Any, Final

from drakkar.constants import (
    API_VERSION,
    LABEL_MEMBER,
    LABEL_ROLE,
    LABEL_SERVICE,
    LABEL_SERVICE_UID,
    MANAGED_BY,
    ROUTER_ROLE,
)
from drakkar.routing import ROUTER_CONTROL_PORT, ROUTER_PORT
from drakkar_operator.model import ServiceView
from drakkar_operator.render.parts import RESTRICTED_CONTAINER, RESTRICTED_POD
from drakkar_operator.render.settings import WorkerSettings

ROUTER_REQUESTS: Final = {"cpu": "100m", "memory": "256Mi"}
ROUTER_GRACE_SECONDS: Final = 15
"""Beyond the drain of the requests that it relays."""

Object = dict[str, Any]


def owner(service: ServiceView) -> Object:
    """Reference of a service as the controlling owner."""
    return {
        "apiVersion": API_VERSION,
        "kind": "InferenceService",
        "name": service.name,
        "uid": service.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def servers_name(service: str) -> str:
    """Of the headless Service by which the pods of a replica find each other."""
    return f"{service}-serve"


def router_name(service: str) -> str:
    """Of the router's Deployment."""
    return f"{service}-router"


def service_url(service: ServiceView, settings: WorkerSettings) -> str:
    """Base URL for OpenAI's clients inside the cluster."""
    return f"http://{service.name}.{service.namespace}.svc.{settings.cluster_domain}/v1"


def objects(
    service: ServiceView, settings: WorkerSettings, token_digest: str
) -> list[tuple[str, Object]]:
    """(plural, object) of all that must exist for a service; by the digest routers know us."""
    found = [
        ("services", _router_service(service)),
        ("services", _servers_service(service)),
        ("deployments", _router(service, settings, token_digest)),
    ]
    if service.spec.routing.routers > 1:
        found.append(("poddisruptionbudgets", _router_budget(service)))
    return found


def _metadata(service: ServiceView, name: str) -> Object:
    return {
        "name": name,
        "namespace": service.namespace,
        "labels": {
            **MANAGED_BY,
            LABEL_SERVICE: service.name,
            LABEL_SERVICE_UID: service.uid,
        },
        "ownerReferences": [owner(service)],
    }


def _router_labels(service: ServiceView) -> dict[str, str]:
    return {LABEL_SERVICE: service.name, LABEL_ROLE: ROUTER_ROLE, LABEL_SERVICE_UID: service.uid}


def _router_service(service: ServiceView) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(service, service.name),
        "spec": {
            "selector": _router_labels(service),
            "ports": [{"name": "http", "port": 80, "targetPort": ROUTER_PORT}],
        },
    }


def _servers_service(service: ServiceView) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(service, servers_name(service.name)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {
                LABEL_SERVICE_UID: service.uid,
                "app.kubernetes.io/name": "inferenceservice",
            },
            "ports": [{"name": "http", "port": service.spec.runtime.port}],
        },
    }


def _router(service: ServiceView, settings: WorkerSettings, token_digest: str) -> Object:
    labels = _router_labels(service)
    drain = service.spec.rollout.drain_seconds
    container: Object = {
        "name": "router",
        "image": settings.image,
        "command": [settings.python, "-m", "drakkar_workers.serve.router"],
        "args": [
            *("--uid", service.uid),
            *("--token-digest", token_digest),
            *("--drain-timeout", str(drain)),
        ],
        "ports": [
            {"name": "http", "containerPort": ROUTER_PORT},
            {"name": "control", "containerPort": ROUTER_CONTROL_PORT},
        ],
        "env": [{"name": "HOME", "value": "/tmp"}],
        "resources": {"requests": dict(ROUTER_REQUESTS)},
        "securityContext": dict(RESTRICTED_CONTAINER),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": ROUTER_CONTROL_PORT},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
        },
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": ROUTER_CONTROL_PORT},
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
    }
    if settings.pull_policy:
        container["imagePullPolicy"] = settings.pull_policy
    pod: Object = {
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "securityContext": dict(RESTRICTED_POD),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain + ROUTER_GRACE_SECONDS,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }
        ],
    }
    if settings.runtime_class:
        pod["runtimeClassName"] = settings.runtime_class
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(service, router_name(service.name)),
        "spec": {
            "replicas": service.spec.routing.routers,
            "selector": {"matchLabels": labels},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": {
                "metadata": {"labels": {**MANAGED_BY, **labels}},
                "spec": pod,
            },
        },
    }


def _router_budget(service: ServiceView) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(service, router_name(service.name)),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _router_labels(service)}},
    }


def server_selector(service: ServiceView) -> str:
    """Labels of the servers' pods, as the scale subresource gives them to HPA."""
    return f"{LABEL_SERVICE_UID}={service.uid},{LABEL_MEMBER}"
