"""What the chart installs on nodes with accelerators."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from drakkar_gpu.settings import Settings

Object = dict[str, Any]
Render = Callable[..., list[Object]]

CHART = Path(__file__).parents[3] / "charts" / "drakkar"
ON: Object = {"devices.enabled": True}


def named(objects: list[Object], kind: str) -> Object:
    (found,) = [
        item
        for item in objects
        if item["kind"] == kind
        and item["metadata"]["name"] in ("drakkar-devices", "gpu.drakkar.dev")
    ]
    return found


def folders(objects: list[Object]) -> dict[str, str]:
    volumes = named(objects, "DaemonSet")["spec"]["template"]["spec"]["volumes"]
    return {v["name"]: v["hostPath"]["path"] for v in volumes if "hostPath" in v}


def test_nothing_is_installed_unless_asked_for(render: Render) -> None:
    assert "DaemonSet" not in {item["kind"] for item in render()}
    assert "DeviceClass" not in {item["kind"] for item in render()}


def test_the_pod_is_restricted_but_for_its_folders_and_its_user(render: Render) -> None:
    objects = render(ON)
    spec = named(objects, "DaemonSet")["spec"]["template"]["spec"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert folders(objects) == {
        "device-plugins": "/var/lib/kubelet/device-plugins",
        "own": "/var/lib/kubelet/plugins/gpu.drakkar.dev",
        "pod-resources": "/var/lib/kubelet/pod-resources",
    }


def test_dra_brings_its_class_its_folders_and_its_rights(render: Render) -> None:
    objects = render({**ON, "devices.settings": {"dra": True}})
    assert {"registry", "cdi"} <= folders(objects).keys()
    assert named(objects, "DeviceClass")["apiVersion"] == "resource.k8s.io/v1"
    rules = named(objects, "ClusterRole")["rules"]
    assert "resourceslices" in {name for rule in rules for name in rule["resources"]}
    without = named(render(ON), "ClusterRole")["rules"]
    assert {name for rule in without for name in rule["resources"]} == {
        "nodes",
        "nodes/status",
        "pods",
    }


def test_rights_end_at_the_own_node(render: Render) -> None:
    objects = render({**ON, "devices.namespace": "gpus"})
    account = named(objects, "ServiceAccount")["metadata"]
    (condition,) = named(objects, "ValidatingAdmissionPolicy")["spec"]["matchConditions"]
    name = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    assert name == "system:serviceaccount:gpus:drakkar-devices"
    assert name in condition["expression"]
    binding = named(objects, "ValidatingAdmissionPolicyBinding")["spec"]
    assert binding == {"policyName": "drakkar-devices", "validationActions": ["Deny"]}


def test_settings_are_what_the_daemon_reads(render: Render) -> None:
    objects = render({}, "--values", str(CHART / "values-local.yaml"))
    text = named(objects, "ConfigMap")["data"]["devices.yaml"]
    settings = Settings.model_validate(yaml.safe_load(text))
    assert settings.simulated is not None
    assert settings.simulated.count == 8
    spec = named(objects, "DaemonSet")["spec"]["template"]["spec"]
    assert spec["runtimeClassName"] == "drakkar-local"


def test_changed_settings_replace_the_pods(render: Render) -> None:
    def checksum(count: int) -> str:
        objects = render({**ON, "devices.settings": {"simulated": {"count": count}}})
        template = named(objects, "DaemonSet")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/settings"])

    assert checksum(4) != checksum(8)


def test_every_object_is_labelled(render: Render) -> None:
    for item in render({**ON, "devices.settings": {"dra": True}}):
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "drakkar"


def test_a_misspelt_setting_is_refused(attempt: Callable[..., Any]) -> None:
    answer = attempt({**ON, "devices.settings": {"simulatd": {}}})
    assert answer.returncode != 0
    assert "simulatd" in answer.stderr


def test_metrics_bring_a_port_a_right_and_a_monitor(render: Render) -> None:
    objects = render({**ON, "podMonitor.enabled": True})
    (container,) = named(objects, "DaemonSet")["spec"]["template"]["spec"]["containers"]
    assert container["ports"] == [{"name": "metrics", "containerPort": 8601}]
    assert "--metrics-port=8601" in container["command"]
    pods = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    assert pods in named(objects, "ClusterRole")["rules"]
    monitor = named(objects, "PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"]["app.kubernetes.io/component"] == "devices"
    assert monitor["podMetricsEndpoints"][0]["honorLabels"] is True


def test_without_metrics_the_daemon_sees_no_pods(render: Render) -> None:
    objects = render({**ON, "podMonitor.enabled": True, "devices.metricsPort": 0})
    (container,) = named(objects, "DaemonSet")["spec"]["template"]["spec"]["containers"]
    assert "ports" not in container
    assert all("pods" not in rule["resources"] for rule in named(objects, "ClusterRole")["rules"])
    assert "PodMonitor" not in {
        item["kind"] for item in objects if item["metadata"]["name"] == "drakkar-devices"
    }
