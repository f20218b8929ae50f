"""Configuration of what runs on each node beside containerd: kubelet and kube-proxy."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from drakkar.local.host import HostFacts
from drakkar.local.network import CLUSTER_DOMAIN, AddressPlan
from drakkar.local.runtime import CONTAINERD_SOCKET
from drakkar.local.topology import NodeSpec
from drakkar.quantity import parse


def withheld(spec: NodeSpec, facts: HostFacts) -> dict[str, str]:
    """What a kubelet must set aside so that the node offers no more than its specification.

    A kubelet always finds the whole machine; the difference is called reserved for the system.
    """
    aside: dict[str, str] = {}
    if spec.cpu is not None:
        milli = Decimal(facts.cpus * 1000) - parse(spec.cpu) * 1000
        if milli > 0:
            aside["cpu"] = f"{int(milli)}m"
    if spec.memory is not None:
        kibi = (Decimal(facts.memory_bytes) - parse(spec.memory)) / 1024
        if kibi > 0:
            aside["memory"] = f"{int(kibi)}Ki"
    return aside


def kubelet_config(
    spec: NodeSpec,
    *,
    plan: AddressPlan,
    cgroup: str,
    authority: Path,
    serving: tuple[Path, Path],
    resolver: Path,
    facts: HostFacts,
) -> dict[str, Any]:
    """The KubeletConfiguration of a node.

    Its lease runs out after 8 s, so that with the controller manager's grace of 12 s a lost node
    is noticed within 15 s.
    """
    certificate, key = serving
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "clusterDNS": [plan.host],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": str(resolver),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "0.1%",
            "nodefs.inodesFree": "0.1%",
            "imagefs.available": "0.1%",
            "imagefs.inodesFree": "0.1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "imageMinimumGCAge": "8760h",
        "maxPods": 110,
        "serializeImagePulls": False,
        "nodeLeaseDurationSeconds": 8,
        "nodeStatusUpdateFrequency": "4s",
        "makeIPTablesUtilChains": False,
    }
    aside = withheld(spec, facts)
    if aside:
        config["systemReserved"] = aside
    if not facts.may_raise_limits:
        config["featureGates"] = {"KubeletInUserNamespace": True}
    return config


def kube_proxy_config(
    spec: NodeSpec, *, plan: AddressPlan, number: int, kubeconfig: Path
) -> dict[str, Any]:
    """The KubeProxyConfiguration of a node.

    Packets to services that come from outside the pod network get the node's address: so the
    host, too, can use ClusterIPs. Connection tracking limits belong to the whole machine and are
    left alone.
    """
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": plan.node_address(number),
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": plan.pods,
        "conntrack": {"maxPerCore": 0, "min": 0},
        "hostnameOverride": spec.name,
        "nftables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
    }
