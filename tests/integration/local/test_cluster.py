"""What pods and people rely on, on the shared cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from drakkar.local import Cluster, ClusterError
from drakkar.local.images import Entry, ImageConfig, image_archive
from drakkar.local.kubeapi import node_is_ready
from drakkar.local.process import wait_until
from drakkar.local.topology import RACK_LABEL

pytestmark = pytest.mark.cluster

NODES = ["node-1", "node-2", "node-3", "node-4"]
SERVER = ("python", "-m", "http.server", "8000", "--directory", "/etc")
PEERS = {
    "metadata": {"name": "peers"},
    "spec": {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"app": "peer"},
        "ports": [{"port": 8000}],
    },
}
# A service answers a moment after its pod does: every node has to hear of it first.
FETCH = """
import sys, time, urllib.request
for attempt in range(20):
    try:
        print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
        break
    except OSError:
        time.sleep(0.5)
"""


def from_host(url: str) -> str:
    """What this machine itself is answered, once it is."""
    answers: list[str] = []

    def answered() -> bool:
        try:
            answers.append(httpx.get(url, trust_env=False, timeout=2).text.strip())
        except httpx.HTTPError:
            return False
        return True

    wait_until(answered, seconds=15, what=f"An answer of {url}", poll=0.2)
    return answers[0]


def claim(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def test_nodes_are_ready_and_labelled(cluster: Cluster) -> None:
    with cluster.api() as api:
        nodes = {node["metadata"]["name"]: node for node in api.list("/api/v1/nodes")}
    assert set(NODES) <= set(nodes)
    assert all(node_is_ready(nodes[name]) for name in NODES)
    racks = [nodes[name]["metadata"]["labels"][RACK_LABEL] for name in NODES]
    assert racks == ["rack-1", "rack-1", "rack-2", "rack-2"]


def test_restricted_pods_find_and_reach_each_other_across_nodes(kube: Any, pod: Any) -> None:
    kube.create("services", PEERS)
    for node in NODES:
        kube.create("pods", pod(f"on-{node}", *SERVER, node=node))
    names = [f"on-{node}" for node in NODES]
    kube.wait_for_pods(*names)
    for name in names:
        answer = kube.kubectl(
            "exec", "on-node-1", "--", "python", "-c", FETCH, f"http://{name}.peers:8000/hostname"
        )
        assert answer.strip() == name
    address = kube.pod("on-node-3")["status"]["podIP"]
    assert from_host(f"http://{address}:8000/hostname") == names[2]


def test_pods_reach_services_and_the_api_server_by_cluster_ip(kube: Any, pod: Any) -> None:
    service = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "peer"}}}
    service["spec"]["ports"] = [{"port": 80, "targetPort": 8000}]
    kube.create("services", service)
    kube.create("pods", pod("web-1", *SERVER, node="node-1"))
    kube.create("pods", pod("asks", "sleep", "600", node="node-4"))
    kube.wait_for_pods("web-1", "asks")
    url = f"http://web.{kube.namespace}.svc.cluster.local/hostname"
    assert kube.kubectl("exec", "asks", "--", "python", "-c", FETCH, url).strip() == "web-1"
    script = (
        "import ssl, urllib.request as r;"
        "c = ssl.create_default_context("
        "cafile='/var/run/secrets/kubernetes.io/serviceaccount/ca.crt');"
        "print(r.urlopen('https://kubernetes.default/version', context=c).read().decode())"
    )
    assert "v1.37" in kube.kubectl("exec", "asks", "--", "python", "-c", script)
    address = kube.api.get(kube.path("services", "web"))["spec"]["clusterIP"]
    assert from_host(f"http://{address}/hostname") == "web-1"


def test_a_pod_has_the_environment_read_only_and_no_more_rights(kube: Any, pod: Any) -> None:
    script = (
        "import os, sys, torch, drakkar_workers, pathlib;"
        "assert os.getuid() == 65532 and sys.dont_write_bytecode;"
        "assert pathlib.Path('/opt/drakkar/data').is_dir();"
        "print('torch', torch.__version__, torch.ones(2).sum().item())"
    )
    obj = pod("runs-torch", "python", "-c", script)
    obj["spec"]["restartPolicy"] = "Never"
    kube.create("pods", obj)
    wait_until(
        lambda: kube.pod("runs-torch")["status"]["phase"] in ("Succeeded", "Failed"),
        seconds=90,
        what="The end of the pod",
        poll=0.5,
    )
    assert kube.kubectl("logs", "runs-torch").startswith("torch ")
    assert kube.pod("runs-torch")["status"]["phase"] == "Succeeded"
    kube.create("pods", pod("tries", "sleep", "600"))
    kube.wait_for_pods("tries")
    for place in ("/", "/usr", "/opt/drakkar/data"):
        with pytest.raises(ClusterError, match="exit code"):
            kube.kubectl("exec", "tries", "--", "touch", f"{place}/x")


def test_privileged_pods_are_refused_by_the_restricted_level(kube: Any, pod: Any) -> None:
    obj = pod("root", "sleep", "1")
    obj["spec"]["securityContext"] = {"runAsUser": 0}
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        kube.create("pods", obj)


def test_a_claim_is_shared_by_nodes_and_deleted_with_its_data(
    cluster: Cluster, kube: Any, pod: Any
) -> None:
    kube.create("persistentvolumeclaims", claim("shared"))
    path = kube.path("persistentvolumeclaims", "shared")
    wait_until(
        lambda: kube.api.get(path)["status"]["phase"] == "Bound", seconds=20, what="The volume"
    )
    write = "echo from-one > /shared/text; sleep 600"
    kube.create("pods", pod("writes", "sh", "-c", write, node="node-1", claim="shared"))
    kube.create("pods", pod("reads", "sleep", "600", node="node-4", claim="shared"))
    kube.wait_for_pods("writes", "reads")
    assert kube.kubectl("exec", "reads", "--", "cat", "/shared/text") == "from-one\n"
    folder = cluster.folder / "volumes" / kube.api.get(path)["spec"]["volumeName"]
    assert folder.is_dir()
    for name in ("writes", "reads"):
        kube.api.delete(kube.path("pods", name))
    kube.api.delete(path)
    wait_until(lambda: not folder.exists(), seconds=40, what="The deletion of the folder")


def test_an_archive_is_loaded_on_every_node(
    cluster: Cluster, kube: Any, pod: Any, tmp_path: Path
) -> None:
    archive = tmp_path / "own.tar"
    entries = [Entry("usr"), Entry("etc"), Entry("own", content=b"mine\n", mode=0o644)]
    entries += [Entry(name, target=f"usr/{name}") for name in ("bin", "lib", "lib64")]
    config = ImageConfig(command=["sleep", "600"])
    archive.write_bytes(image_archive("localhost/own:1", entries, config))
    assert cluster.load_image(archive) == []
    obj = pod("own", "sleep", "600", node="node-3")
    obj["spec"]["containers"][0]["image"] = "localhost/own:1"
    kube.create("pods", obj)
    kube.wait_for_pods("own")
    assert kube.kubectl("exec", "own", "--", "cat", "/own") == "mine\n"


def test_up_again_changes_nothing(cluster: Cluster) -> None:
    before = cluster.processes()
    Cluster.load_or_up(cluster.name, nodes=2)
    cluster.up()
    assert cluster.processes() == before
