"""Places of nodes from the labels that clouds and their tools set.

AWS: ``topology.k8s.aws/network-node-layer-N``, the higher the nearer (EKS user guide, "network
topology labels"). Google: ``cloud.google.com/gce-topology-block`` and ``-subblock`` (GKE, compact
placement). NVIDIA Topograph: ``network.topology.nvidia.com/spine`` and ``/leaf``.
"""

from collections.abc import Mapping

SOURCES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "aws",
        ("topology.k8s.aws/network-node-layer-2",),
        ("topology.k8s.aws/network-node-layer-4", "topology.k8s.aws/network-node-layer-3"),
    ),
    (
        "google",
        ("cloud.google.com/gce-topology-block",),
        ("cloud.google.com/gce-topology-subblock",),
    ),
    (
        "topograph",
        ("network.topology.nvidia.com/spine",),
        ("network.topology.nvidia.com/leaf",),
    ),
)
"""(source, labels that name the block, labels that name the rack); the first that is there counts."""


def place(labels: Mapping[str, str]) -> dict[str, str]:
    """Block and rack of a node by its labels; empty where no source is known."""
    for _, blocks, racks in SOURCES:
        block = next((labels[key] for key in blocks if labels.get(key)), "")
        rack = next((labels[key] for key in racks if labels.get(key)), "")
        if block or rack:
            return {name: value for name, value in (("block", block), ("rack", rack)) if value}
    return {}
