"""A real Kubernetes cluster of several nodes on this machine; see `Cluster`."""

from drakkar.local.cluster import ApiServer, Cluster, Node
from drakkar.local.errors import ClusterError
from drakkar.local.topology import NodeSpec, Taint, Topology, default_topology, load_topology

__all__ = [
    "ApiServer",
    "Cluster",
    "ClusterError",
    "Node",
    "NodeSpec",
    "Taint",
    "Topology",
    "default_topology",
    "load_topology",
]
