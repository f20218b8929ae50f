"""Checks of nodes: pods are made and taken away, slow nodes are tainted, good ones released."""

from typing import Any

import pytest

from drakkar.check.results import NodeResult
from drakkar.constants import CONDITION_CHECK, TAINT_CHECK

NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/drakkar-system/deployments"
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


@pytest.fixture
def fleet(api: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two nodes; the second is tainted from an earlier check."""
    monkeypatch.setattr("secrets.token_hex", lambda _: "abc")
    taint = {"key": TAINT_CHECK, "value": "SlowLink", "effect": "NoSchedule"}
    nodes = [
        {"metadata": {"name": name, "resourceVersion": "7"}, "spec": spec, "status": READY}
        for name, spec in (("node-1", {}), ("node-2", {"taints": [taint]}))
    ]
    api.on("GET", NODES, {"items": nodes})
    for node in nodes:
        path = f"{NODES}/{node['metadata']['name']}"
        api.on("GET", path, node)
        api.on("PATCH", path, {})
        api.on("PATCH", f"{path}/status", {})
    env = [{"name": "DRAKKAR_WORKER_IMAGE", "value": "worker:1"}]
    template = {"spec": {"containers": [{"env": env}]}}
    api.on("GET", DEPLOYMENTS, {"items": [{"spec": {"template": template}}]})
    api.on("POST", PODS, {})
    return api


def measured(api: Any, *teraflops: float) -> None:
    for rank, value in enumerate(teraflops):
        result = NodeResult(node=f"node-{rank + 1}", accelerator="cpu", teraflops=(value,))
        state = {"terminated": {"exitCode": 0, "message": result.model_dump_json()}}
        status = {
            "phase": "Succeeded",
            "podIP": "10.0.0.1",
            "containerStatuses": [{"state": state}],
        }
        api.on("GET", f"{PODS}/check-abc-{rank}", {"status": status})
        api.on("DELETE", f"{PODS}/check-abc-{rank}", {})


def test_a_slow_node_is_tainted_and_a_good_one_released(drakkar: Any, fleet: Any) -> None:
    measured(fleet, 0.1, 1.0)
    result = drakkar("node", "check", "--all")
    assert result.exit_code == 1
    assert "node-1  SlowCompute" in result.stdout
    assert "10% of the fleet's median" in result.stdout
    assert "node-2  passed" in result.stdout
    changed = {path: body for path, _, body in fleet.sent("PATCH")}
    (taint,) = changed[f"{NODES}/node-1"]["spec"]["taints"]
    assert taint == {"key": TAINT_CHECK, "value": "SlowCompute", "effect": "NoSchedule"}
    assert changed[f"{NODES}/node-2"]["spec"]["taints"] == []
    assert changed[f"{NODES}/node-2"]["metadata"] == {"resourceVersion": "7"}
    for node, status in (("node-1", "False"), ("node-2", "True")):
        (condition,) = changed[f"{NODES}/{node}/status"]["status"]["conditions"]
        assert (condition["type"], condition["status"]) == (CONDITION_CHECK, status)
    assert [body["spec"]["nodeName"] for _, _, body in fleet.sent("POST")] == ["node-1", "node-2"]
    assert len(fleet.sent("DELETE")) == 2


def test_report_only_changes_no_node(drakkar: Any, fleet: Any) -> None:
    measured(fleet, 0.1, 1.0)
    assert drakkar("node", "check", "node-1", "node-2", "--report-only").exit_code == 1
    assert fleet.sent("PATCH") == []


def test_what_is_wrong_is_said(drakkar: Any, fleet: Any) -> None:
    for arguments, words in (
        ([], "name the nodes to check, or say --all"),
        (["node-9"], "there is no node 'node-9'"),
        (["node-1", "--operator", "elsewhere"], "elsewhere"),
    ):
        result = drakkar("node", "check", *arguments)
        assert result.exit_code == 1
        assert words in result.stderr
