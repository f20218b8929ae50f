"""Where the API server keeps what the operator reads and writes."""

from typing import Final

from drakkar.constants import GROUP, VERSION

API: Final = f"/apis/{GROUP}/{VERSION}"
PODS: Final = "/api/v1/pods"
NODES: Final = "/api/v1/nodes"
PRIORITY_CLASSES: Final = "/apis/scheduling.k8s.io/v1/priorityclasses"
TRAINING_JOBS: Final = f"{API}/trainingjobs"
INFERENCE_SERVICES: Final = f"{API}/inferenceservices"
QUEUES: Final = f"{API}/queues"
TOPOLOGIES: Final = f"{API}/topologies"


def pods(namespace: str) -> str:
    """Pods of a namespace."""
    return f"/api/v1/namespaces/{namespace}/pods"


def services(namespace: str) -> str:
    """Services of a namespace."""
    return f"/api/v1/namespaces/{namespace}/services"


def secrets(namespace: str) -> str:
    """Secrets of a namespace."""
    return f"/api/v1/namespaces/{namespace}/secrets"


def claim(namespace: str, name: str) -> str:
    """A PersistentVolumeClaim."""
    return f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}"


def training_jobs(namespace: str) -> str:
    """TrainingJobs of a namespace."""
    return f"{API}/namespaces/{namespace}/trainingjobs"


def training_job(namespace: str, name: str) -> str:
    """A TrainingJob."""
    return f"{training_jobs(namespace)}/{name}"


def inference_services(namespace: str) -> str:
    """InferenceServices of a namespace."""
    return f"{API}/namespaces/{namespace}/inferenceservices"


def inference_service(namespace: str, name: str) -> str:
    """An InferenceService."""
    return f"{inference_services(namespace)}/{name}"


def collection(api_version: str, plural: str, namespace: str) -> str:
    """Objects of any namespaced kind, such as apps/v1 deployments."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{root}/namespaces/{namespace}/{plural}"


def queue(name: str) -> str:
    """A Queue."""
    return f"{QUEUES}/{name}"


def topology(name: str) -> str:
    """A Topology."""
    return f"{TOPOLOGIES}/{name}"
