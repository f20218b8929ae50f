"""Places of nodes are shown, and written only when asked to."""

from pathlib import Path
from typing import Any

NODES = "/api/v1/nodes"
TOPOLOGY = "/apis/drakkar.dev/v1alpha1"


def known(api: Any, **labels: str) -> None:
    items = [{"metadata": {"name": n, "labels": {"kubernetes.io/hostname": n, **labels}}}
             for n in ("node-1", "node-2")]  # fmt: skip
    api.on("GET", NODES, {"items": items})


def test_a_file_is_shown_and_nothing_is_changed(drakkar: Any, api: Any, tmp_path: Path) -> None:
    known(api)
    file = tmp_path / "places.yaml"
    file.write_text("node-1: {block: b1, rack: r1}\n")
    result = drakkar("topology", "discover", "--file", str(file))
    assert result.exit_code == 0
    assert "node-1  b1     r1" in result.stdout
    assert "1 of 2 nodes are not in it" in result.stdout
    assert api.sent("PATCH") == []


def test_apply_labels_nodes_and_makes_the_topology(drakkar: Any, api: Any, tmp_path: Path) -> None:
    known(api)
    file = tmp_path / "places.yaml"
    file.write_text("node-1: {rack: r1}\nnode-2: {rack: r2}\n")
    for name in ("node-1", "node-2"):
        api.on("PATCH", f"{NODES}/{name}", {})
    api.on("GET", TOPOLOGY, {"resources": [
        {"kind": "Topology", "name": "topologies", "namespaced": False}]})  # fmt: skip
    api.on("PATCH", f"{TOPOLOGY}/topologies/cluster", {})
    result = drakkar("topology", "discover", "--file", str(file), "--apply")
    assert result.exit_code == 0, result.stderr
    (one, two, made) = api.sent("PATCH")
    assert one[2] == {"metadata": {"labels": {"topology.drakkar.dev/rack": "r1"}}}
    assert two[0] == f"{NODES}/node-2"
    assert [level["name"] for level in made[2]["spec"]["levels"]] == ["rack", "host"]


def test_a_cloud(drakkar: Any, api: Any) -> None:
    known(api, **{"cloud.google.com/gce-topology-block": "b9"})
    result = drakkar("topology", "discover", "--cloud")
    assert result.exit_code == 0
    assert "node-2  b9" in result.stdout


def test_what_is_wrong_is_said(drakkar: Any, api: Any, tmp_path: Path) -> None:
    known(api)
    file = tmp_path / "out.txt"
    for text, arguments, words in (
        ("node-9: {rack: r}", ["--file", str(file)], "the cluster has no node 'node-9'"),
        ("x", ["--ibnetdiscover", str(file)], "out.txt: there is no switch in it"),
        ("x", ["--ibnetdiscover", "/no/such"], "/no/such can't be read"),
        ("x", [], "one of --cloud, --file and --ibnetdiscover"),
        ("x", ["--cloud"], "no node of the cluster was found in it"),
    ):
        file.write_text(text)
        result = drakkar("topology", "discover", *arguments)
        assert result.exit_code == 1
        assert words in result.stderr, result.stderr
