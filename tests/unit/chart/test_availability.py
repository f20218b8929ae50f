"""Replicas, who may reach them, and the pod of `helm test`."""

from collections.abc import Callable
from typing import Any

import pytest

from support.chart import CI

Object = dict[str, Any]
Render = Callable[..., list[Object]]
ALL = ("-f", str(CI[0]))


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [
        each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)
    ]
    return found


def pod_of(objects: list[Object], name: str) -> Object:
    spec: Object = named(objects, "Deployment", name)["spec"]["template"]
    return spec


@pytest.mark.parametrize("name", ["drakkar-operator", "drakkar-server"])
def test_replicas_prefer_different_nodes_and_one_at_a_time_is_drained(
    render: Render, name: str
) -> None:
    objects = render({"server.enabled": True, "replicas": 2, "server.replicas": 2})
    template = pod_of(objects, name)
    (term,) = template["spec"]["affinity"]["podAntiAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    chosen = term["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert chosen.items() <= template["metadata"]["labels"].items()
    budget = named(objects, "PodDisruptionBudget", name)["spec"]
    assert budget["selector"]["matchLabels"] == chosen
    assert budget["maxUnavailable"] == 1


def test_one_replica_has_no_affinity_and_no_budget_which_would_stop_a_drain(render: Render) -> None:
    objects = render({"server.enabled": True})
    assert "PodDisruptionBudget" not in {each["kind"] for each in objects}
    for name in ("drakkar-operator", "drakkar-server"):
        assert "affinity" not in pod_of(objects, name)["spec"]


def test_an_affinity_of_ones_own_takes_the_place_of_it(render: Render) -> None:
    mine = {"nodeAffinity": {"x": 1}}
    objects = render({"replicas": 2, "affinity": mine})
    assert pod_of(objects, "drakkar-operator")["spec"]["affinity"] == mine


def test_policies_let_in_who_is_named_and_those_who_scrape(render: Render) -> None:
    objects = render({}, *ALL)
    (operator, _) = named(objects, "NetworkPolicy", "drakkar-operator")["spec"]["ingress"]
    (pages,) = named(objects, "NetworkPolicy", "drakkar-server")["spec"]["ingress"]
    (devices,) = named(objects, "NetworkPolicy", "drakkar-devices")["spec"]["ingress"]
    monitoring = {"kubernetes.io/metadata.name": "monitoring"}
    for each in (operator, pages, devices):
        assert {"namespaceSelector": {"matchLabels": monitoring}} in each["from"]
    test = named(objects, "Pod", "drakkar-test")["metadata"]["labels"]
    for each in (operator, pages):
        allowed = [peer.get("podSelector", {}).get("matchLabels") for peer in each["from"]]
        assert any(labels and labels.items() <= test.items() for labels in allowed)
    for name in ("drakkar-operator", "drakkar-server"):
        selected = named(objects, "NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"]
        assert selected.items() <= pod_of(objects, name)["metadata"]["labels"].items()


def test_pages_are_open_to_the_cluster_unless_users_are_named(render: Render) -> None:
    objects = render({"server.enabled": True, "networkPolicy.enabled": True})
    (rule,) = named(objects, "NetworkPolicy", "drakkar-server")["spec"]["ingress"]
    assert rule["from"] == [{"namespaceSelector": {}}]


def test_daemons_without_metrics_are_reached_by_nobody(render: Render) -> None:
    values = {"devices.enabled": True, "devices.metricsPort": 0, "networkPolicy.enabled": True}
    assert named(render(values), "NetworkPolicy", "drakkar-devices")["spec"]["ingress"] == []


def test_the_test_pod_is_restricted_and_asks_every_service(render: Render) -> None:
    pod = named(render({}, *ALL), "Pod", "drakkar-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["command"][3:] == [
        "http://drakkar-operator:8080/readyz",
        "http://drakkar-server/readyz",
    ]
    compile(container["command"][2], "helm test", "exec")


def test_the_test_pod_asks_only_what_is_there(render: Render) -> None:
    pod = named(render({"port": 9090}), "Pod", "drakkar-test")
    assert pod["spec"]["containers"][0]["command"][3:] == ["http://drakkar-operator:9090/readyz"]
