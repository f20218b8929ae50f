"""Random nodes and pods that use all that kube-scheduler looks at in a pod's fixed part."""

import random
from typing import Any

Object = dict[str, Any]

KEYS = ("color", "size", "example.com/pool")
VALUES = ("red", "blue", "5", "007", "12", "x-1")
EFFECTS = ("NoSchedule", "NoExecute", "PreferNoSchedule")
NIC = "example.com/nic"
HUGE = "hugepages-2Mi"
NAME_LABEL = "odd-pods.drakkar.dev/node"
PORTS = (8080, 8081, 9090)
ADDRESSES = ("", "0.0.0.0", "127.0.0.1", "10.1.2.3")


def odd_node(name: str, chance: random.Random) -> Object:
    """A node with few of everything, so that pods are often refused."""
    labels = {key: chance.choice(VALUES) for key in KEYS if chance.random() < 0.6}
    offered = {
        "cpu": chance.choice(("1", "2", "3500m")),
        "memory": chance.choice(("1Gi", "3Gi", "2500Mi")),
        "pods": str(chance.choice((2, 4, 110))),
        "ephemeral-storage": chance.choice(("1Gi", "10Gi")),
    }
    if chance.random() < 0.5:
        offered[NIC] = str(chance.randint(0, 3))
    if chance.random() < 0.3:
        offered[HUGE] = "64Mi"
    taints = [
        {
            "key": chance.choice(KEYS),
            "effect": chance.choice(EFFECTS),
            **({"value": chance.choice(VALUES)} if chance.random() < 0.7 else {}),
        }
        for _ in range(chance.choice((0, 0, 1, 2)))
    ]
    # One taint per key and effect.
    unique = {(taint["key"], taint["effect"]): taint for taint in taints}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, NAME_LABEL: name, **labels},
        },
        "spec": {"taints": list(unique.values()), "unschedulable": chance.random() < 0.15},
        "status": {
            "allocatable": offered,
            "capacity": offered,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Test"}],
        },
    }


def odd_pod(name: str, node: str, nodes: list[str], chance: random.Random) -> Object:
    """A pod that only this node can take, if it can."""
    spec: Object = {
        "nodeSelector": {NAME_LABEL: node},
        "containers": [_container(f"c{at}", chance) for at in range(chance.choice((1, 1, 2)))],
        "tolerations": [_toleration(chance) for _ in range(chance.choice((0, 1, 2, 3)))],
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
    }
    if chance.random() < 0.3:
        spec["nodeSelector"][chance.choice(KEYS)] = chance.choice(VALUES)
    if chance.random() < 0.2:
        spec["initContainers"] = [_container("i0", chance)]
        if chance.random() < 0.5:
            spec["initContainers"][0]["restartPolicy"] = "Always"
    if chance.random() < 0.1:
        spec["hostNetwork"] = True
    if chance.random() < 0.5:
        terms = [_term(nodes, chance) for _ in range(chance.choice((1, 1, 2)))]
        required = {"nodeSelectorTerms": terms}
        spec["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}
        }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"odd": "yes"}},
        "spec": spec,
    }


def _container(name: str, chance: random.Random) -> Object:
    requests: Object = {}
    limits: Object = {}
    if chance.random() < 0.7:
        requests["cpu"] = chance.choice(("0", "100m", "900m", "1500m", "3"))
    if chance.random() < 0.5:
        limits["memory"] = chance.choice(("64Mi", "700Mi", "1Gi", "2G"))
    if chance.random() < 0.2:
        requests["ephemeral-storage"] = chance.choice(("10Mi", "2Gi"))
    if chance.random() < 0.25:
        limits[NIC] = str(chance.randint(0, 2))
    if chance.random() < 0.1:
        # Pages come only with memory or CPU beside them.
        limits |= {HUGE: "16Mi", "memory": "64Mi"}
    container: Object = {
        "name": name,
        "image": "none",
        "resources": {"requests": requests, "limits": limits},
    }
    if chance.random() < 0.3:
        port: Object = {
            "containerPort": chance.choice(PORTS),
            "protocol": chance.choice(("TCP", "UDP")),
        }
        if chance.random() < 0.7:
            port["hostPort"] = port["containerPort"]
            if address := chance.choice(ADDRESSES):
                port["hostIP"] = address
        container["ports"] = [port]
    return container


def _toleration(chance: random.Random) -> Object:
    toleration: Object = {}
    operator = chance.choice(("Exists", "Equal", None, "Gt", "Lt"))
    if operator:
        toleration["operator"] = operator
    if operator != "Exists" or chance.random() < 0.8:
        toleration["key"] = chance.choice(KEYS)
    if operator in ("Gt", "Lt"):
        toleration["value"] = chance.choice(("4", "10"))
    elif operator != "Exists" and chance.random() < 0.8:
        toleration["value"] = chance.choice(VALUES)
    if chance.random() < 0.6:
        toleration["effect"] = chance.choice(EFFECTS)
    return toleration


def _term(nodes: list[str], chance: random.Random) -> Object:
    term: Object = {}
    expressions = [_expression(chance) for _ in range(chance.choice((0, 1, 1, 2)))]
    if expressions:
        term["matchExpressions"] = expressions
    if chance.random() < 0.25:
        named = {"operator": chance.choice(("In", "NotIn")), "values": [chance.choice(nodes)]}
        term["matchFields"] = [{"key": "metadata.name", **named}]
    return term


def _expression(chance: random.Random) -> Object:
    operator = chance.choice(("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"))
    expression: Object = {"key": chance.choice(KEYS), "operator": operator}
    if operator in ("In", "NotIn"):
        expression["values"] = chance.sample(VALUES, chance.randint(1, 3))
    elif operator in ("Gt", "Lt"):
        expression["values"] = [chance.choice(("4", "7", "10"))]
    return expression
