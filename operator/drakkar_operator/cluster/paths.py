"""Where the API server keeps what the operator reads and writes."""

from typing import Final

from drakkar.constants import GROUP, VERSION

API: Final = f"/apis/{GROUP}/{VERSION}"
PODS: Final = "/api/v1/pods"
NODES: Final = "/api/v1/nodes"
PRIORITY_CLASSES: Final = "/apis/scheduling.k8s.io/v1/priorityclasses"
TRAINING_JOBS: Final = f"{API}/trainingjobs"
QUEUES: Final = f"{API}/queues"
TOPOLOGIES: Final = f"{API}/topologies"


def pods(namespace: str) -> str:
    """Pods of a namespace."""
    return f"/api/v1/namespaces/{namespace}/pods"


def services(namespace: str) -> str:
    """Services of a namespace."""
    return f"/api/v1/namespaces/{namespace}/services"


def claim(namespace: str, name: str) -> str:
    """A PersistentVolumeClaim."""
    return f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}"


def training_jobs(namespace: str) -> str:
    """TrainingJobs of a namespace."""
    return f"{API}/namespaces/{namespace}/trainingjobs"


def training_job(namespace: str, name: str) -> str:
    """A TrainingJob."""
    return f"{training_jobs(namespace)}/{name}"


def queue(name: str) -> str:
    """A Queue."""
    return f"{QUEUES}/{name}"


def topology(name: str) -> str:
    """A Topology."""
    return f"{TOPOLOGIES}/{name}"
