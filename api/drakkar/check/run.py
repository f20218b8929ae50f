"""Carries a check out: makes the pods, waits for what they say, takes them away."""

import time
from collections.abc import Callable

from drakkar.check.pods import Plan, pod, pod_name, result
from drakkar.check.results import NodeResult
from drakkar.client import Client

POLL_SECONDS = 0.5


def run(
    client: Client,
    plan: Plan,
    *,
    seconds: float,
    tell: Callable[[str], None] = lambda _: None,
) -> list[NodeResult]:
    """Results of all nodes, in their order. Raises ClientError.

    A node that says nothing within ``seconds`` has a result with an error. The first node holds the
    store where the others meet, so its pod must start; if it does not, nothing can be measured.
    """
    deadline = time.monotonic() + seconds
    made = 0
    try:
        client.pods_of_nodes.create(pod(plan, 0, "0.0.0.0"))
        made = 1
        address = _address(client, plan, deadline)
        for rank in range(1, len(plan.nodes)) if address else ():
            client.pods_of_nodes.create(pod(plan, rank, address))
            made += 1
        tell(f"measuring {len(plan.nodes)} nodes")
        return _wait(client, plan, made, deadline)
    finally:
        for rank in range(made):
            client.pods_of_nodes.delete(plan.namespace, pod_name(plan, rank))


def _address(client: Client, plan: Plan, deadline: float) -> str:
    """Address of rank 0's pod; empty if it ended before it had one."""
    while time.monotonic() < deadline:
        found = client.pods_of_nodes.find(plan.namespace, pod_name(plan, 0))
        status = (found or {}).get("status") or {}
        if status.get("podIP"):
            return str(status["podIP"])
        if result(plan.nodes[0], found) is not None:
            return ""
        time.sleep(POLL_SECONDS)
    return ""


def _wait(client: Client, plan: Plan, made: int, deadline: float) -> list[NodeResult]:
    found: dict[int, NodeResult] = {}
    while len(found) < made and time.monotonic() < deadline:
        for rank in range(made):
            if rank not in found:
                seen = client.pods_of_nodes.find(plan.namespace, pod_name(plan, rank))
                told = result(plan.nodes[rank], seen)
                if told is not None:
                    found[rank] = told
        time.sleep(POLL_SECONDS)
    late = "it did not answer in time" if made > 1 or not found else "the first node did not start"
    return [
        found.get(rank, NodeResult(node=node, accelerator="", error=late))
        for rank, node in enumerate(plan.nodes)
    ]
