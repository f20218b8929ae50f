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
LABEL_QUEUE: Final = f"{GROUP}/queue"
MANAGED_BY: Final = {"app.kubernetes.io/managed-by": "drakkar"}

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
TRAINER_CONTAINER: Final = "trainer"
RUN_AS_USER: Final = 65532
"""UID and GID of training pods: non-root, as the restricted Pod Security Standard asks."""
CHECKPOINT_MOUNT: Final = "/checkpoints"
DATA_DIR: Final = "/opt/drakkar/data"
"""Where worker images hold the data sets that recipes name."""

DEVICES_VARIABLE: Final = "DRAKKAR_DEVICES"
"""Environment variable of a container: ids of its accelerators, separated by commas."""
