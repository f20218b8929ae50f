"""Names that more than one component must agree on."""

from typing import Final

GROUP: Final = "drakkar.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
FIELD_MANAGER: Final = "drakkar-operator"

LABEL_JOB: Final = f"{GROUP}/job"
"""Name of the TrainingJob that a pod or service belongs to."""
LABEL_JOB_UID: Final = f"{GROUP}/job-uid"
"""UID of that job: tells a pod of a deleted job from one of its namesake."""
LABEL_REPLICA: Final = f"{GROUP}/replica"
"""Index of the pod in its gang, from 0."""
LABEL_ROLE: Final = f"{GROUP}/role"
"""Role of the pod, in gangs that have roles."""
LABEL_QUEUE: Final = f"{GROUP}/queue"
LABEL_SERVICE: Final = f"{GROUP}/service"
"""Name of the InferenceService that a pod belongs to."""
LABEL_SERVICE_UID: Final = f"{GROUP}/service-uid"
LABEL_MEMBER: Final = f"{GROUP}/member"
"""Which replica of its service a server's pod belongs to; its index there is LABEL_REPLICA."""
LABEL_REVISION: Final = f"{GROUP}/revision"
MANAGED_BY: Final = {"app.kubernetes.io/managed-by": "drakkar"}

DEVICES_ANNOTATION: Final = f"{GROUP}/devices"
"""On a node: JSON object, resource -> number of devices that pods may share by thousandths of it. The
node advertises 1000 of the resource for each."""
SHARES_ANNOTATION: Final = f"{GROUP}/device-shares"
"""On a pod: JSON object, resource -> {device: thousandths that the pod holds of it}. Devices are
numbered from 0 in the plugin's order."""

LEVEL_HOST: Final = "kubernetes.io/hostname"
DEFAULT_LEVELS: Final = (
    ("zone", "topology.kubernetes.io/zone"),
    ("block", "topology.drakkar.dev/block"),
    ("rack", "topology.drakkar.dev/rack"),
    ("host", LEVEL_HOST),
)
"""Level name and node label, widest first, used when the cluster has no Topology object."""

AGENT_PORT: Final = 8600
"""Port of the agent in every training pod: reports, heartbeats of its peers, metrics."""
RENDEZVOUS_PORT: Final = 8700
"""First of the ports at which rank 0's trainer offers its store, one per epoch in turn."""
ROLE_ENV: Final = "DRAKKAR_ROLE"
"""Variable that tells a pod of a gang with roles its own."""
TRAINER_CONTAINER: Final = "trainer"
SERVER_CONTAINER: Final = "server"
ROUTER_ROLE: Final = "router"
"""LABEL_ROLE of a service's router."""
MODEL_MOUNT: Final = "/models"
ADAPTER_MOUNT: Final = "/adapters"
CACHE_MOUNT: Final = "/cache"
RUN_AS_USER: Final = 65532
"""UID and GID of training pods: non-root, as the restricted Pod Security Standard asks."""
CHECKPOINT_MOUNT: Final = "/checkpoints"
DATA_DIR: Final = "/opt/drakkar/data"
"""Where worker images hold the data sets that recipes name."""

DEVICES_VARIABLE: Final = "DRAKKAR_DEVICES"
"""Environment variable of a container: ids of its accelerators, separated by commas."""

LABEL_ACCELERATOR: Final = f"{GROUP}/accelerator"
"""Node label: model of its accelerators, such as NVIDIA-H100-80GB-HBM3."""
LABEL_ACCELERATOR_COUNT: Final = f"{GROUP}/accelerator-count"
LABEL_ACCELERATOR_MEMORY: Final = f"{GROUP}/accelerator-memory-gib"
"""Memory of one accelerator, whole GiB."""
LABEL_FABRIC: Final = f"topology.{GROUP}/fabric"
"""Node label: fabric of the accelerators that spans nodes (an NVLink clique, a TPU slice)."""
ANNOTATION_DEVICES: Final = f"{GROUP}/devices"
"""Node annotation: its accelerators, their links and network cards; see drakkar.devices."""
ANNOTATION_FAULTS: Final = f"{GROUP}/device-faults"
"""Node annotation: accelerators that no new pod gets, and why; see drakkar.devices."""
CONDITION_DEVICES: Final = "DevicesHealthy"
"""Node condition that the device plugin sets."""
TAINT_FAULT: Final = f"{GROUP}/device-fault"
"""Node taint while accelerators are broken: avoided while some are well, closed when none is."""
CONDITION_CHECK: Final = "AcceleratorCheckPassed"
"""Node condition that a check of the node sets (drakkar node check)."""
TAINT_CHECK: Final = f"{GROUP}/check-failed"
"""Node taint after a failed check, until one is passed."""
