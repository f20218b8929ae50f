"""Places of nodes from clouds' labels, files and ibnetdiscover."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar.fabric import cloud, file, infiniband
from drakkar.fabric.infiniband import FabricError
from drakkar.fabric.places import label_changes, topology
from drakkar.v1alpha1 import Topology

DOCUMENTED = """\
#
# Topology file: generated on Tue Jun  5 14:15:10 2007
#
# Max of 3 hops discovered
# Initiated from node 0008f10403960558 port 0008f10403960559

Non-Chassis Nodes

vendid=0x8f1
devid=0x5a06
sysimgguid=0x5442ba00003000
switchguid=0x5442ba00003080(5442ba00003080)
Switch  24 "S-005442ba00003080"         # "ISR9024 Voltaire" base port 0 lid 6 lmc 0
[22]    "H-0008f10403961354"[1](8f10403961355)         # "node-1 HCA-1" lid 4 4xSDR
[10]    "S-0008f10400410015"[1]         # "SW-6IB4 Voltaire" lid 3 4xSDR

vendid=0x8f1
devid=0x5a05
switchguid=0x8f10400410015(8f10400410015)
Switch  8 "S-0008f10400410015"          # "SW-6IB4 Voltaire" base port 0 lid 3 lmc 0
[6]     "H-0008f10403960984"[1](8f10403960985)         # "node-2 mlx5_0" lid 16 4xSDR
[1]     "S-005442ba00003080"[10]                # "ISR9024 Voltaire" lid 6 1xSDR

vendid=0x2c9
devid=0x5a44
caguid=0x8f10403960984
Ca      2 "H-0008f10403960984"          # "node-2 mlx5_0"
[1](8f10403960985)      "S-0008f10400410015"[6]         # lid 16 lmc 1 "SW-6IB4 Voltaire" lid 3 4xSDR

vendid=0x2c9
devid=0x5a44
caguid=0x8f10403961354
Ca      2 "H-0008f10403961354"          # "node-1 HCA-1"
[1](8f10403961355)      "S-005442ba00003080"[22]                # lid 4 lmc 1 "ISR9024 Voltaire" lid 6 4xSDR
"""
"""The example of the format's documentation (infiniband-diags), with hosts' names for adapters."""


def fabric(*, units: int, hosts: int, rails: int) -> str:
    """Three tiers: units of hosts on a leaf per rail, spines of two units each, one core above."""
    lines = []
    for unit in range(units):
        for rail in range(rails):
            lines.append(f'Switch 64 "S-1{unit:02}{rail:02}" # "leaf" base port 0 lid 1 lmc 0')
            for host in range(hosts):
                name = f"h{unit}-{host}"
                lines.append(
                    f'[{host + 1}] "H-{unit:02}{host:02}{rail:02}"[1](ab) # "{name} mlx5_{rail}" lid 2 4xNDR'
                )
            lines.append(f'[64] "S-2{unit // 2:02}"[{unit + 1}] # "spine" lid 3 4xNDR')
    for spine in range((units + 1) // 2):
        lines += [f'Switch 64 "S-2{spine:02}" # "spine" base port 0', f'[1] "S-3"[{spine + 1}]']
    adapters = [
        f'Ca 1 "H-{unit:02}{host:02}{rail:02}" # "h{unit}-{host}.example.com mlx5_{rail}"'
        for unit in range(units)
        for host in range(hosts)
        for rail in range(rails)
    ]
    return "\n".join([*lines, 'Switch 64 "S-3" # "core"', *adapters])


def test_the_documented_example() -> None:
    found = infiniband.places(infiniband.parse(DOCUMENTED), ["node-1", "node-2", "node-3"])
    assert found == {
        "node-1": {"block": "ib-0008f10400410015", "rack": "ib-005442ba00003080"},
        "node-2": {"block": "ib-0008f10400410015", "rack": "ib-0008f10400410015"},
    }


@pytest.mark.parametrize("rails", [1, 8])
def test_scalable_units_are_racks_and_what_shares_spines_is_a_block(rails: int) -> None:
    text = fabric(units=4, hosts=3, rails=rails)
    nodes = [f"h{unit}-{host}.example.com" for unit in range(4) for host in range(3)]
    found = infiniband.places(infiniband.parse(text), nodes)
    assert found.keys() == set(nodes)
    racks = [[found[n]["rack"] for n in nodes[i : i + 3]] for i in range(0, 12, 3)]
    assert all(len(set(rack)) == 1 for rack in racks)
    assert len({rack[0] for rack in racks}) == 4
    blocks = [found[nodes[i]]["block"] for i in range(0, 12, 3)]
    assert blocks[0] == blocks[1] != blocks[2] == blocks[3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no switch"),
        ("hello", "there is no switch"),
        ('[1] "S-1"[2]', "line 1 is a port of nothing"),
        ('Switch 8 "S-1"\n[x] "S-2"[1]', r"line 2 is no port: '\[x\]"),
        ("Switch eight", "line 1 is no switch or adapter"),
        (DOCUMENTED[:600][: DOCUMENTED.index("[10]") + 8], "is no port"),
    ],
)
def test_what_is_wrong_is_named_by_line(text: str, message: str) -> None:
    with pytest.raises(FabricError, match=message):
        infiniband.parse(text)


@given(st.integers(0, len(DOCUMENTED)), st.integers(0, len(DOCUMENTED)))
def test_parts_of_the_output_are_read_or_refused(start: int, end: int) -> None:
    with suppress(FabricError):
        infiniband.places(infiniband.parse(DOCUMENTED[start:end]), ["node-1"])


@given(st.text(alphabet='SwitchCa "[]()-#0123456789\n'))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(FabricError):
        infiniband.places(infiniband.parse(text), ["node-1"])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, {}),
        (
            {
                "topology.k8s.aws/network-node-layer-1": "nn-1",
                "topology.k8s.aws/network-node-layer-2": "nn-2",
                "topology.k8s.aws/network-node-layer-3": "nn-3",
            },
            {"block": "nn-2", "rack": "nn-3"},
        ),
        (
            {
                "topology.k8s.aws/network-node-layer-3": "nn-3",
                "topology.k8s.aws/network-node-layer-4": "nn-4",
            },
            {"rack": "nn-4"},
        ),
        (
            {
                "cloud.google.com/gce-topology-block": "b",
                "cloud.google.com/gce-topology-subblock": "s",
            },
            {"block": "b", "rack": "s"},
        ),
        (
            {
                "network.topology.nvidia.com/leaf": "l",
                "network.topology.nvidia.com/spine": "s",
            },
            {"block": "s", "rack": "l"},
        ),
    ],
)
def test_clouds(labels: dict[str, str], expected: dict[str, str]) -> None:
    assert cloud.place(labels) == expected


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "places.yaml"
    path.write_text("n1: {block: b1, rack: 7}\nn2: {zone: z}\n")
    assert file.load(path) == {"n1": {"block": "b1", "rack": "7"}, "n2": {"zone": "z"}}


@pytest.mark.parametrize("text", ["n1: {row: 3}", "n1: b", "[n1]", "n1: {rack: [1]}", "{", ""])
def test_a_wrong_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "places.yaml"
    path.write_text(text)
    with pytest.raises(FabricError, match=r"places\.yaml"):
        file.load(path)


def test_labels_change_only_where_they_differ() -> None:
    labels = {"topology.drakkar.dev/rack": "r1", "topology.drakkar.dev/block": "b0"}
    assert label_changes(labels, {"rack": "r1", "block": "b 1"}) == {
        "topology.drakkar.dev/block": "b-1"
    }


def test_the_topology_has_the_levels_that_are_labelled() -> None:
    nodes = [
        {"topology.drakkar.dev/rack": "r1", "kubernetes.io/hostname": "n1"},
        {"topology.drakkar.dev/fabric": "clique-1", "kubernetes.io/hostname": "n2"},
    ]
    made = topology("cluster", nodes)
    Topology.model_validate(made)
    assert [level["name"] for level in made["spec"]["levels"]] == ["rack", "fabric", "host"]
