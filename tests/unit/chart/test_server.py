"""The API server by the chart: off at first, restricted, and with no right to change anything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

CHART = Path(__file__).parents[3] / "charts" / "drakkar"
Object = dict[str, Any]
Render = Callable[..., list[Object]]


def named(objects: list[Object], kind: str) -> Object:
    (found,) = [
        o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, "drakkar-server")
    ]
    return found


def test_it_is_off_unless_asked_for(render: Render) -> None:
    assert not any(item["metadata"]["name"] == "drakkar-server" for item in render())


def test_pod_meets_the_restricted_standard(render: Render) -> None:
    spec = named(render({"server.enabled": True}), "Deployment")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_it_may_look_and_ask_but_change_nothing(render: Render) -> None:
    objects = render({"server.enabled": True})
    for rule in named(objects, "ClusterRole")["rules"]:
        allowed = {"get", "list", "watch"}
        if rule["resources"] in (["tokenreviews"], ["subjectaccessreviews"]):
            allowed = {"create"}
        assert set(rule["verbs"]) <= allowed
        assert "secrets" not in rule["resources"]
        assert "*" not in rule["resources"]
    assert named(objects, "ClusterRoleBinding")["roleRef"]["name"] == "drakkar-server"


def test_the_service_leads_to_the_pods(render: Render) -> None:
    objects = render({"server.enabled": True})
    labels = named(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert named(objects, "Service")["spec"]["selector"].items() <= labels.items()


def test_secrets_are_referred_to_and_never_written(render: Render) -> None:
    values = {
        "server.enabled": True,
        "server.database.secretName": "db",
        "server.sessionKeySecret": "s",
    }
    (container,) = named(render(values), "Deployment")["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item for item in container["env"]}
    reference = environment["DRAKKAR_DATABASE"]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": "db", "key": "url"}
    assert environment["DRAKKAR_SESSION_KEY_FILE"]["value"] == "/session/key"


def test_the_local_cluster_has_it_on_every_node(render: Render) -> None:
    objects = render({}, "--values", str(CHART / "values-local.yaml"))
    service = named(objects, "Service")["spec"]
    assert service["type"] == "NodePort"
    assert service["ports"][0]["nodePort"] == 30890
    spec = named(objects, "Deployment")["spec"]["template"]["spec"]
    assert spec["runtimeClassName"] == "drakkar-local"
    assert spec["containers"][0]["imagePullPolicy"] == "Never"


def test_a_node_port_is_asked_for_only_where_there_are_some(render: Render) -> None:
    values = {"server": {"enabled": True, "service": {"nodePort": 30890}}}
    service = named(render(values), "Service")["spec"]
    assert service["type"] == "ClusterIP"
    assert "nodePort" not in service["ports"][0]
