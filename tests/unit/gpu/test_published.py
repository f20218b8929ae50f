"""A node says what its devices are and how they are, and is left alone when it does."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest

from drakkar.constants import ANNOTATION_DEVICES, ANNOTATION_FAULTS, CONDITION_DEVICES, TAINT_FAULT
from drakkar.devices import Nic, parse_devices, parse_faults
from drakkar.fabric.places import label_value
from drakkar_gpu.devices.base import Fault, Severity
from drakkar_gpu.devices.simulated import Simulated, SimulatedSpec
from drakkar_gpu.health import Health, look
from drakkar_gpu.links import link_matrix
from drakkar_gpu.published import Changes, Facts, changes, wanted

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"
Object = dict[str, Any]


def facts(*faults: Fault, count: int = 4) -> Facts:
    spec = SimulatedSpec(model="NVIDIA H100 80GB HBM3", count=count, domain="clique 7")
    vendor = Simulated(spec, node="n1")
    devices = vendor.devices()
    health = look(Health(), devices, faults, 0.0, settle=0.0)
    nics = (Nic(name="mlx5_0", numa=0, rail=0),)
    return Facts("simulated", vendor.resource, health, link_matrix(devices, vendor.links()), nics)


def xid(index: int, severity: Severity = Severity.FATAL) -> Fault:
    return Fault(f"SIM-n1-{index}", "xid-79", "fell off the bus", severity)


def node(**spec: Any) -> Object:
    return {"metadata": {"name": "n1", "resourceVersion": "5", "labels": {"a": "b"}}, "spec": spec}


def applied(before: Object, patch: Changes) -> Object:
    """The node with the patches applied as the API server does."""

    def merge(target: Object, change: Mapping[str, Any]) -> None:
        for key, value in change.items():
            if value is None:
                target.pop(key, None)
            elif isinstance(value, Mapping):
                merge(target.setdefault(key, {}), value)
            else:
                target[key] = value

    after = deepcopy(before)
    merge(after, patch.node)
    merge(after, patch.status)
    return after


def condition(of: Object) -> Object:
    (found,) = of["status"]["conditions"]
    return found  # type: ignore[no-any-return]


def test_a_healthy_node() -> None:
    after = applied(node(), changes(node(), wanted([facts()]), NOW))
    assert after["metadata"]["labels"] == {
        "a": "b",
        "drakkar.dev/accelerator": "NVIDIA-H100-80GB-HBM3",
        "drakkar.dev/accelerator-count": "4",
        "drakkar.dev/accelerator-memory-gib": "80",
        "topology.drakkar.dev/fabric": "clique-7",
    }
    (told,) = parse_devices(after["metadata"]["annotations"][ANNOTATION_DEVICES])
    assert told.resource == "drakkar.dev/gpu"
    assert [device.id for device in told.devices] == [f"SIM-n1-{i}" for i in range(4)]
    assert len(told.links) == 6
    assert told.links[0] == (0, 1, "fabric", 3600.0)
    assert told.nics[0].name == "mlx5_0"
    assert ANNOTATION_FAULTS not in after["metadata"]["annotations"]
    assert "taints" not in after["spec"]
    assert condition(after)["status"] == "True"
    assert changes(after, wanted([facts()]), LATER) == Changes()


def test_a_broken_device_is_told_with_its_evidence() -> None:
    after = applied(node(), changes(node(), wanted([facts(xid(2))]), NOW))
    (told,) = parse_faults(after["metadata"]["annotations"][ANNOTATION_FAULTS])
    assert told.devices["SIM-n1-2"].code == "xid-79"
    assert told.devices["SIM-n1-2"].severity == "fatal"
    assert condition(after) == {
        "type": CONDITION_DEVICES,
        "status": "False",
        "reason": "DeviceFault",
        "message": "1 of 4 devices: SIM-n1-2: xid-79: fell off the bus (fatal)",
        "lastTransitionTime": NOW,
        "lastHeartbeatTime": NOW,
    }
    (taint,) = after["spec"]["taints"]
    assert taint == {"key": TAINT_FAULT, "value": "xid-79", "effect": "PreferNoSchedule"}
    assert after["metadata"]["resourceVersion"] == "5"


def test_a_node_without_a_healthy_device_is_closed() -> None:
    want = wanted([facts(*(xid(i, Severity.UNHEALTHY) for i in range(4)))])
    assert want.taint is not None
    assert want.taint["effect"] == "NoSchedule"


def test_recovery_takes_back_what_was_ours_and_nothing_else() -> None:
    other = {"key": "dedicated", "value": "x", "effect": "NoSchedule"}
    broken = applied(
        node(taints=[other]), changes(node(taints=[other]), wanted([facts(xid(2))]), NOW)
    )
    assert len(broken["spec"]["taints"]) == 2
    well = applied(broken, changes(broken, wanted([facts()]), LATER))
    assert well["spec"]["taints"] == [other]
    assert ANNOTATION_FAULTS not in well["metadata"]["annotations"]
    assert condition(well)["status"] == "True"
    assert condition(well)["lastTransitionTime"] == LATER


def test_more_evidence_does_not_change_when_it_began() -> None:
    broken = applied(node(), changes(node(), wanted([facts(xid(2))]), NOW))
    worse = applied(broken, changes(broken, wanted([facts(xid(2), xid(3))]), LATER))
    assert condition(worse)["lastTransitionTime"] == NOW
    assert condition(worse)["lastHeartbeatTime"] == LATER


def test_a_node_without_devices_has_no_labels_of_them() -> None:
    with_devices = applied(node(), changes(node(), wanted([facts()]), NOW))
    after = applied(with_devices, changes(with_devices, wanted([]), NOW))
    assert after["metadata"]["labels"] == {"a": "b"}
    assert after["metadata"]["annotations"] == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NVIDIA H100 80GB HBM3", "NVIDIA-H100-80GB-HBM3"),
        ("(x)", "x"),
        ("-", ""),
        ("m" * 80, "m" * 63),
        ("昇腾 910B", "910B"),
    ],
)
def test_label_values(text: str, value: str) -> None:
    assert label_value(text) == value


def test_a_cloud_tells_where_the_node_stands_unless_somebody_did() -> None:
    cloud = {
        "topology.k8s.aws/network-node-layer-2": "nn-2",
        "topology.k8s.aws/network-node-layer-3": "nn-3",
    }
    new = node()
    new["metadata"]["labels"] = {**cloud, "topology.drakkar.dev/rack": "r7"}
    after = applied(new, changes(new, wanted([facts()]), NOW))
    assert after["metadata"]["labels"]["topology.drakkar.dev/block"] == "nn-2"
    assert after["metadata"]["labels"]["topology.drakkar.dev/rack"] == "r7"
    assert changes(after, wanted([facts()]), LATER) == Changes()
