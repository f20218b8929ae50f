"""The objects that every local cluster holds from the start."""

from __future__ import annotations

from typing import Any

from drakkar.local.runtime import RUNTIME_CLASS
from drakkar.local.topology import NodeSpec

STORAGE_CLASS = "drakkar-shared"
PROVISIONER = "storage.drakkar.dev/shared"
DNS_USER = "system:drakkar-dns"

Object = dict[str, Any]


def runtime_class() -> Object:
    """Pods that name it see the host's Python environment."""
    return {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": RUNTIME_CLASS},
        "handler": RUNTIME_CLASS,
    }


def storage_class() -> Object:
    """Claims are folders of the host, which all nodes share."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def dns_role() -> Object:
    """What CoreDNS reads."""
    verbs = ["list", "watch"]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": DNS_USER},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": verbs},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs},
        ],
    }


def dns_role_binding() -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": DNS_USER},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": DNS_USER,
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": DNS_USER}],
    }


def kubelet_api_role_binding() -> Object:
    """Lets the API server fetch logs and start commands on nodes."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "drakkar:kube-apiserver-to-kubelet"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "system:kubelet-api-admin",
        },
        "subjects": [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "kube-apiserver"}
        ],
    }


def nodes_role_binding() -> Object:
    """Lets kubelets read what pods mount before the node authorizer has seen the pod.

    A kubelet that starts a pod the moment it is bound can be faster than the authorizer's own
    watch; it is then refused the pod's claim, and tries again only some 15 seconds later.
    """
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "drakkar:nodes"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "system:node"},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": "system:nodes"}],
    }


def initial_objects() -> list[tuple[str, Object]]:
    """Each object with the path it is applied at."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    return [
        (f"/apis/node.k8s.io/v1/runtimeclasses/{RUNTIME_CLASS}", runtime_class()),
        (f"/apis/storage.k8s.io/v1/storageclasses/{STORAGE_CLASS}", storage_class()),
        (f"{rbac}/clusterroles/{DNS_USER}", dns_role()),
        (f"{rbac}/clusterrolebindings/{DNS_USER}", dns_role_binding()),
        (
            f"{rbac}/clusterrolebindings/drakkar:kube-apiserver-to-kubelet",
            kubelet_api_role_binding(),
        ),
        (f"{rbac}/clusterrolebindings/drakkar:nodes", nodes_role_binding()),
    ]


def node_object(spec: NodeSpec) -> Object:
    """A Node with what its specification says.

    It is made before its kubelet registers, which may not set every label itself.
    """
    node: Object = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": spec.name, "labels": spec.node_labels()},
    }
    if spec.taints:
        node["spec"] = {
            "taints": [taint.model_dump(exclude_defaults=False) for taint in spec.taints]
        }
    return node
