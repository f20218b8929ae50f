"""Fake nodes by KWOK: thousands of nodes that exist for the API server only.

They stand in racks of 8 and blocks of 64. Pods on them run at once, and for ever unless their
annotation ``fake.drakkar.dev/runs-for`` says how long (``30s``); then they succeed. KWOK manages the
nodes that bear its annotation, and so leaves the real ones alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from drakkar.local.kubeapi import KubeApi
from drakkar.local.network import AddressPlan
from drakkar.local.state import DEFAULT_GRACE_SECONDS
from drakkar.local.topology import BLOCK_LABEL, HOST_LABEL, RACK_LABEL, ZONE_LABEL

NODES_PER_RACK = 8
NODES_PER_BLOCK = 64
ANNOTATION = "kwok.x-k8s.io/node"
RUNS_FOR = "fake.drakkar.dev/runs-for"
"""Annotation of a pod: how long it runs on a fake node, as Go writes durations."""
PROCESS = "kwok"

# A lease is renewed after a quarter of its duration; this many a second cost little.
_RENEWALS_PER_SECOND = 25
_NODES = "/api/v1/nodes"

Object = dict[str, Any]

_FINISHED = """\
{{ $now := Now }}
{{ $root := . }}
containerStatuses:
{{ range $index, $item := .spec.containers }}
{{ $origin := index $root.status.containerStatuses $index }}
- image: {{ $item.image | Quote }}
  name: {{ $item.name | Quote }}
  ready: false
  restartCount: 0
  started: false
  state:
    terminated:
      exitCode: 0
      finishedAt: {{ $now | Quote }}
      reason: Completed
      startedAt: {{ or $origin.state.running.startedAt $now | Quote }}
{{ end }}
phase: Succeeded
"""


def lease_seconds(nodes: int) -> int:
    """How long the leases of so many nodes last, so that renewing them costs little."""
    return max(8, math.ceil(4 * nodes / _RENEWALS_PER_SECOND))


def grace_seconds(nodes: int) -> int:
    """How long a node may be silent when so many fake ones share the cluster.

    With many of them real node losses are noticed late: the limit is one for all nodes.
    """
    return max(DEFAULT_GRACE_SECONDS, math.ceil(2.5 * lease_seconds(nodes) / 4))


def node_name(number: int) -> str:
    return f"fake-{number:05d}"


def fake_node(number: int, *, gpus: int = 8, cpu: str = "96", memory: str = "1Ti") -> Object:
    """Fake node `number`, counted from 0."""
    name = node_name(number)
    offered = {"cpu": cpu, "memory": memory, "pods": "110", "nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {ANNOTATION: "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {
                "type": "kwok",
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "node-role.kubernetes.io/agent": "",
                HOST_LABEL: name,
                ZONE_LABEL: "fake-zone-1",
                BLOCK_LABEL: f"fake-block-{number // NODES_PER_BLOCK:03d}",
                RACK_LABEL: f"fake-rack-{number // NODES_PER_RACK:04d}",
            },
        },
        "spec": {"taints": [{"key": ANNOTATION, "value": "fake", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": offered,
            "capacity": offered,
            "nodeInfo": {"kubeletVersion": "fake", "operatingSystem": "linux"},
            "phase": "Running",
        },
    }


def kwok_config() -> Object:
    """KWOK with more workers than its 4: else it is what limits how fast pods come to run."""
    return {
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "kind": "KwokConfiguration",
        "options": {
            "podPlayStageParallelism": 32,
            "nodePlayStageParallelism": 16,
            "nodeLeaseParallelism": 8,
            "podsOnNodeSyncParallelism": 8,
        },
    }


def finish_stage() -> Object:
    """KWOK's stage that ends a pod after the time that its annotation says."""
    seconds = f'.metadata.annotations["{RUNS_FOR}"]'
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": "pod-finish"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {
                "matchExpressions": [
                    {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
                    {"key": ".status.phase", "operator": "In", "values": ["Running"]},
                    {"key": seconds, "operator": "Exists"},
                ]
            },
            "delay": {"durationFrom": {"jq": {"expression": seconds}}},
            "next": {"statusTemplate": _FINISHED},
        },
    }


def kwok_command(
    program: Path, *, kubeconfig: Path, configs: Iterable[Path], plan: AddressPlan, nodes: int
) -> list[str]:
    """KWOK's controller for so many nodes."""
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        *(f"--config={config}" for config in configs),
        "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector={ANNOTATION}=fake",
        f"--node-lease-duration-seconds={lease_seconds(nodes)}",
        # Pods of fake nodes get addresses that nothing routes.
        f"--cidr=10.{224 + plan.index}.0.1/16",
        f"--node-ip={plan.host}",
        f"--server-address={plan.host}:10247",
    ]


def ensure(api: KubeApi, count: int, *, gpus: int) -> None:
    """Make and delete nodes, several at a time, until there are exactly so many."""
    names = {node_name(number) for number in range(count)}
    there = {n["metadata"]["name"] for n in api.list(_NODES, labelSelector="type=kwok")}
    missing = [number for number in range(count) if node_name(number) not in there]
    with ThreadPoolExecutor(8) as pool:
        gone = pool.map(lambda name: api.delete(f"{_NODES}/{name}"), sorted(there - names))
        made = pool.map(lambda number: api.create(_NODES, fake_node(number, gpus=gpus)), missing)
        # Reading the results raises what went wrong.
        list(gone)
        list(made)
