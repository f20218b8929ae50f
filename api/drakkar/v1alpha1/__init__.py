"""The kinds of group ``drakkar.dev``, version ``v1alpha1``."""

from drakkar.v1alpha1.inferenceservice import InferenceServiceSpec, InferenceServiceStatus
from drakkar.v1alpha1.objects import (
    KINDS,
    InferenceService,
    Kind,
    KubernetesObject,
    Queue,
    Topology,
    TrainingJob,
)
from drakkar.v1alpha1.queue import QueueSpec, QueueStatus
from drakkar.v1alpha1.topology import TopologySpec, TopologyStatus
from drakkar.v1alpha1.trainingjob import TrainingJobSpec, TrainingJobStatus

__all__ = [
    "KINDS",
    "InferenceService",
    "InferenceServiceSpec",
    "InferenceServiceStatus",
    "Kind",
    "KubernetesObject",
    "Queue",
    "QueueSpec",
    "QueueStatus",
    "Topology",
    "TopologySpec",
    "TopologyStatus",
    "TrainingJob",
    "TrainingJobSpec",
    "TrainingJobStatus",
]
