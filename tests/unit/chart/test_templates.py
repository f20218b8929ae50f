"""What the chart installs, for the values that people set."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from drakkar.constants import AGENT_PORT, LABEL_JOB_UID

Object = dict[str, Any]
Render = Callable[..., list[Object]]

CHART = Path(__file__).parents[3] / "charts" / "drakkar"


def only(objects: list[Object], kind: str) -> Object:
    found = [item for item in objects if item["kind"] == kind]
    assert len(found) == 1, [item["metadata"]["name"] for item in found]
    return found[0]


def pod(objects: list[Object]) -> Object:
    spec: Object = only(objects, "Deployment")["spec"]["template"]["spec"]
    return spec


def environment(objects: list[Object]) -> dict[str, Any]:
    (container,) = pod(objects)["containers"]
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


def rules(objects: list[Object]) -> Iterator[Object]:
    for item in objects:
        if item["kind"] in ("Role", "ClusterRole"):
            yield from item["rules"]


def test_pod_meets_the_restricted_standard(render: Render) -> None:
    spec = pod(render())
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any("hostPath" in volume for volume in spec["volumes"])
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_probes_and_service_lead_to_the_operators_port(render: Render) -> None:
    objects = render({"port": 9090})
    (container,) = pod(objects)["containers"]
    assert container["ports"][0] == {"name": "http", "containerPort": 9090}
    assert environment(objects)["DRAKKAR_PORT"] == "9090"
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    service = only(objects, "Service")["spec"]
    assert [port["port"] for port in service["ports"]] == [9090, 8081, 8082]
    assert {port["targetPort"] for port in service["ports"]} == {
        port["name"] for port in container["ports"]
    }


def test_service_selects_the_pods(render: Render) -> None:
    objects = render()
    labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selector = only(objects, "Service")["spec"]["selector"]
    assert selector.items() <= labels.items()
    assert only(objects, "Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_environment_carries_the_values(render: Render) -> None:
    worker = {
        "image": "example.com/worker:2",
        "python": "/env/bin/python",
        "runtimeClassName": "gpu",
        "pullPolicy": "Always",
    }
    found = environment(
        render(
            {
                "worker": worker,
                "logLevel": "debug",
                "watchNamespaces": ["a", "b"],
                "clusterDomain": "k8s.example",
            }
        )
    )
    assert found["DRAKKAR_WORKER_IMAGE"] == "example.com/worker:2"
    assert found["DRAKKAR_WORKER_PYTHON"] == "/env/bin/python"
    assert found["DRAKKAR_WORKER_RUNTIME_CLASS"] == "gpu"
    assert found["DRAKKAR_WORKER_PULL_POLICY"] == "Always"
    assert found["DRAKKAR_LOG_LEVEL"] == "debug"
    assert found["DRAKKAR_NAMESPACES"] == "a,b"
    assert found["DRAKKAR_CLUSTER_DOMAIN"] == "k8s.example"
    assert found["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_environment_is_what_the_operator_reads(render: Render) -> None:
    from dataclasses import fields

    from drakkar_operator.settings import Settings

    known = {f"DRAKKAR_{item.name.upper()}" for item in fields(Settings)}
    given = {name for name in environment(render()) if name.startswith("DRAKKAR_")}
    assert given <= known


def test_digest_wins_over_tag(render: Render) -> None:
    digest = f"sha256:{'0' * 64}"
    (container,) = pod(render({"image.digest": digest, "image.tag": "x"}))["containers"]
    assert container["image"] == f"drakkar/operator@{digest}"


def test_no_rule_has_a_wildcard(render: Render) -> None:
    for rule in rules(render({"watchNamespaces": ["a"]})):
        for part in ("apiGroups", "resources", "verbs"):
            assert "*" not in rule[part], rule


def test_the_operator_reads_one_secret_which_is_its_own(render: Render) -> None:
    objects = render({"watchNamespaces": ["a"]})
    name = f"{environment(objects)['DRAKKAR_LEASE']}-routers"
    for item in objects:
        if item["kind"] not in ("Role", "ClusterRole"):
            continue
        for rule in item["rules"]:
            if "secrets" not in rule["resources"]:
                continue
            assert item["kind"] == "Role"
            assert (
                item["metadata"]["namespace"]
                == only(objects, "Deployment")["metadata"]["namespace"]
            )
            assert rule["verbs"] == ["create"] or (
                rule["verbs"] == ["get"] and rule["resourceNames"] == [name]
            )


def test_lease_can_be_taken_but_no_other(render: Render) -> None:
    objects = render()
    held = [rule for rule in rules(objects) if "leases" in rule["resources"]]
    changing = [rule for rule in held if "update" in rule["verbs"]]
    assert [rule["resourceNames"] for rule in changing] == [[environment(objects)["DRAKKAR_LEASE"]]]


def test_namespaced_mode_gives_no_right_to_create_pods_elsewhere(render: Render) -> None:
    objects = render({"watchNamespaces": ["team-a", "team-b"]})
    cluster = [item for item in objects if item["kind"] == "ClusterRole"]
    operator = next(item for item in cluster if item["metadata"]["name"] == "drakkar-operator")
    for rule in operator["rules"]:
        if "pods" in rule["resources"]:
            assert set(rule["verbs"]) == {"get", "list", "watch"}
        assert "services" not in rule["resources"]
        assert "trainingjobs" not in rule["resources"]
    roles = {
        item["metadata"]["namespace"]: item
        for item in objects
        if item["kind"] == "Role" and item["metadata"]["name"] == "drakkar-operator"
    }
    assert roles.keys() == {"team-a", "team-b"}
    for role in roles.values():
        assert any(
            "pods" in rule["resources"] and "create" in rule["verbs"] for rule in role["rules"]
        )


def test_users_get_rights_by_aggregation(render: Render) -> None:
    objects = render()
    roles = {item["metadata"]["name"]: item for item in objects if item["kind"] == "ClusterRole"}
    view, edit = roles["drakkar-view"], roles["drakkar-edit"]
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert {verb for rule in view["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in edit["metadata"]["labels"]
    assert not [
        item
        for item in render({"rbac.aggregate": False})
        if item["metadata"]["name"] in ("drakkar-view", "drakkar-edit")
    ]


PLAN = {
    "apiGroups": [""],
    "resources": ["services/proxy"],
    "resourceNames": ["drakkar-operator:plan"],
    "verbs": ["create"],
}
DEBUG = {**PLAN, "resourceNames": ["drakkar-operator:debug"], "verbs": ["get"]}


def test_users_may_plan_and_none_of_them_may_debug(render: Render) -> None:
    objects = render()
    granted = [
        item
        for item in objects
        if item["kind"] == "ClusterRole"
        and any("aggregate-to" in label for label in item["metadata"]["labels"])
    ]
    assert PLAN in [rule for item in granted for rule in item["rules"]]
    assert DEBUG not in [rule for item in granted for rule in item["rules"]]
    roles = {item["metadata"]["name"]: item for item in objects if item["kind"] == "Role"}
    assert roles["drakkar-plan"]["rules"] == [PLAN]
    assert roles["drakkar-debug"]["rules"] == [DEBUG]
    assert roles["drakkar-debug"]["metadata"]["namespace"] == "drakkar-system"
    bound = [item for item in objects if item["kind"] == "RoleBinding"]
    assert {item["roleRef"]["name"] for item in bound} == {"drakkar-operator-leader"}


def test_those_named_in_values_may_plan_or_debug(render: Render) -> None:
    group = {"kind": "Group", "name": "ml", "apiGroup": "rbac.authorization.k8s.io"}
    objects = render({"rbac.planners": [group], "rbac.debuggers": [{**group, "name": "ops"}]})
    bound = {
        item["roleRef"]["name"]: [subject["name"] for subject in item["subjects"]]
        for item in objects
        if item["kind"] == "RoleBinding"
    }
    assert bound["drakkar-plan"] == ["ml"]
    assert bound["drakkar-debug"] == ["ops"]


def test_a_network_policy_leaves_questions_to_the_api_server(render: Render) -> None:
    server = {"ipBlock": {"cidr": "10.0.0.0/28"}}
    values = {"networkPolicy.enabled": True, "networkPolicy.apiServer": [server]}
    metrics, questions = only(render(values), "NetworkPolicy")["spec"]["ingress"]
    assert [port["port"] for port in metrics["ports"]] == ["http"]
    assert [port["port"] for port in questions["ports"]] == ["plan", "debug"]
    assert server in questions["from"]
    _, closed = only(render({"networkPolicy.enabled": True}), "NetworkPolicy")["spec"]["ingress"]
    assert [list(peer) for peer in closed["from"]] == [["podSelector"]]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"replicas": 2}, "PodDisruptionBudget"),
        ({"networkPolicy.enabled": True}, "NetworkPolicy"),
        ({"serviceMonitor.enabled": True}, "ServiceMonitor"),
        ({"podMonitor.enabled": True}, "PodMonitor"),
    ],
)
def test_optional_objects(render: Render, values: Object, kind: str) -> None:
    assert kind not in {item["kind"] for item in render()}
    assert kind in {item["kind"] for item in render(values)}


def test_local_values_use_the_runtime_class_and_no_registry(render: Render) -> None:
    values = {"python": "/env/bin/python", "server.enabled": False}
    objects = render(values, "--values", str(CHART / "values-local.yaml"))
    spec = pod(objects)
    assert spec["runtimeClassName"] == "drakkar-local"
    (container,) = spec["containers"]
    assert container["imagePullPolicy"] == "Never"
    assert container["command"] == ["/env/bin/python", "-m", "drakkar_operator"]
    found = environment(objects)
    assert found["DRAKKAR_WORKER_RUNTIME_CLASS"] == "drakkar-local"
    assert found["DRAKKAR_WORKER_PULL_POLICY"] == "Never"


def test_every_object_is_labelled(render: Render) -> None:
    values = {
        "replicas": 2,
        "watchNamespaces": ["a"],
        "networkPolicy.enabled": True,
        "serviceMonitor.enabled": True,
        "podMonitor.enabled": True,
    }
    for item in render(values):
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "drakkar"
        assert labels["app.kubernetes.io/instance"] == "drakkar"


def test_crds_are_part_of_the_chart(render: Render) -> None:
    found = {item["metadata"]["name"] for item in render({}, "--include-crds") if "spec" in item}
    assert {path.stem for path in (CHART / "crds").glob("*.yaml")} <= found


def test_lint(helm: Callable[..., Any]) -> None:
    for values in ([], ["--values", str(CHART / "values-local.yaml")]):
        answer = helm("lint", "--strict", str(CHART), *values)
        assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_value_is_in_the_schema_and_explained_by_it() -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values.keys() == schema["properties"].keys() - {"global"}


def test_training_pods_are_reached_by_their_like_and_the_operator_alone(render: Render) -> None:
    team = {"namespaceSelector": {"matchLabels": {"team": "metrics"}}}
    values = {"networkPolicy.jobNamespaces": ["ml", "speech"], "networkPolicy.from": [team]}
    policies = [each for each in render(values) if each["kind"] == "NetworkPolicy"]
    assert [each["metadata"]["namespace"] for each in policies] == ["ml", "speech"]
    spec = policies[0]["spec"]
    gang = {"matchExpressions": [{"key": LABEL_JOB_UID, "operator": "Exists"}]}
    assert spec["podSelector"] == gang
    peers, operator = spec["ingress"]
    assert peers == {"from": [{"podSelector": gang}]}
    assert operator["ports"] == [{"port": AGENT_PORT}]
    home, metrics = operator["from"]
    assert home["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "drakkar-system"
    }
    assert home["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "operator"
    assert metrics == team
