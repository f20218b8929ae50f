"""Configuration files, certificates and images, without a cluster."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from drakkar.local import components, fake, host, images, kubeconfig, packages, runtime, storage
from drakkar.local.build import (
    MODULES,
    PACKAGES,
    Module,
    build_flags,
    cache_key,
    link_flags,
    parse_go_version,
    required_versions,
)
from drakkar.local.components import ControlPlaneFiles
from drakkar.local.errors import ClusterError
from drakkar.local.host import HostFacts
from drakkar.local.kubelet import kube_proxy_config, kubelet_config, withheld
from drakkar.local.manifests import node_object
from drakkar.local.network import AddressPlan
from drakkar.local.node import fstab
from drakkar.local.paths import ClusterPaths
from drakkar.local.pki import Authority, Identity, ensure_signing_key
from drakkar.local.state import ClusterState
from drakkar.local.topology import NodeSpec, Taint, default_topology

FACTS = HostFacts(cgroup_v2=False, may_raise_limits=False, cpus=4, memory_bytes=16 * 2**30)
PLAN = AddressPlan(2)


def kubelet_of(spec: NodeSpec, facts: HostFacts = FACTS) -> dict[str, Any]:
    return kubelet_config(
        spec,
        plan=PLAN,
        cgroup="/drakkar/c/n",
        authority=Path("/ca.crt"),
        serving=(Path("/n.crt"), Path("/n.key")),
        resolver=Path("/resolv.conf"),
        facts=facts,
    )


def test_a_kubelet_offers_no_more_than_its_node_has() -> None:
    spec = NodeSpec(name="n", cpu="1500m", memory="4Gi")
    assert withheld(spec, FACTS) == {"cpu": "2500m", "memory": f"{12 * 2**20}Ki"}
    assert kubelet_of(spec)["systemReserved"] == withheld(spec, FACTS)
    assert "systemReserved" not in kubelet_of(NodeSpec(name="n"))
    assert withheld(NodeSpec(name="n", cpu="64", memory="1Ti"), FACTS) == {}


def test_a_kubelet_without_the_right_to_raise_limits_is_told_so() -> None:
    spec = NodeSpec(name="n")
    assert kubelet_of(spec)["featureGates"] == {"KubeletInUserNamespace": True}
    able = HostFacts(cgroup_v2=True, may_raise_limits=True, cpus=4, memory_bytes=1)
    assert "featureGates" not in kubelet_of(spec, able)


def test_kube_proxy_hides_the_host_behind_its_node() -> None:
    config = kube_proxy_config(
        NodeSpec(name="n"), plan=PLAN, number=3, kubeconfig=Path("/kubeconfig")
    )
    assert config["clusterCIDR"] == PLAN.pods
    assert config["bindAddress"] == "10.88.2.13"


def test_containerd_knows_the_runtime_class() -> None:
    import tomllib

    text = runtime.containerd_config(
        root=Path("/r"),
        shim=Path("/bin/shim"),
        base_spec=Path("/spec.json"),
        cni_config=Path("/cni"),
        facts=FACTS,
    )
    plugins = tomllib.loads(text)["plugins"]
    pinned = plugins["io.containerd.cri.v1.images"]["pinned_images"]
    assert pinned == {"sandbox": images.PAUSE_IMAGE}
    cri = plugins["io.containerd.cri.v1.runtime"]
    assert cri["restrict_oom_score_adj"] is True
    assert cri["enable_cdi"] is True
    runtimes = cri["containerd"]["runtimes"]
    assert runtimes["drakkar-local"]["base_runtime_spec"] == "/spec.json"
    assert "base_runtime_spec" not in runtimes["runc"]
    assert {found["runtime_path"] for found in runtimes.values()} == {"/bin/shim"}


def test_mounts_are_added_read_only() -> None:
    spec = {"process": {"rlimits": []}, "mounts": [{"destination": "/proc"}]}
    mounts = [runtime.HostMount(Path("/a"), Path("/b"))]
    changed = runtime.with_host_mounts(spec, mounts)
    assert changed["mounts"][1]["destination"] == "/b"
    assert "ro" in changed["mounts"][1]["options"]
    assert "rlimits" not in changed["process"]
    assert len(spec["mounts"]) == 1


def test_nested_folders_are_mounted_once() -> None:
    paths = [Path("/src/drakkar/.venv"), Path("/usr"), Path("/src/drakkar"), Path("/usr")]
    assert runtime.outermost(paths) == [Path("/src/drakkar"), Path("/usr")]


def test_what_a_private_folder_holds_is_mounted_piece_by_piece(tmp_path: Path) -> None:
    root = tmp_path / "clone"
    for name, mode in (("api", 0o755), ("secret", 0o700)):
        (root / name).mkdir(parents=True)
        (root / name).chmod(mode)
    (root / "pyproject.toml").touch(mode=0o644)
    root.chmod(0o755)
    assert runtime.readable_parts(root) == [root]
    root.chmod(0o700)
    assert runtime.readable_parts(root) == [root / "api", root / "pyproject.toml"]
    (root / "api").chmod(0o700)
    (root / "pyproject.toml").chmod(0o600)
    with pytest.raises(ClusterError, match="chmod -R o"):
        runtime.readable_parts(root)


def test_dns_answers_live_a_second_and_unknown_names_go_on() -> None:
    files = ControlPlaneFiles(Path("/state"))
    text = components.corefile(files, PLAN, ["1.2.3.4"])
    assert "ttl 1" in text
    assert "forward . 1.2.3.4" in text
    assert "disable success cluster.local" in text
    assert "forward" not in components.corefile(files, PLAN, [])


def test_resolvers_are_the_first_three_that_can_be_used() -> None:
    text = "# x\nnameserver fe80::1%eth0\nsearch a\n" + "".join(
        f"nameserver 10.0.0.{i}\n" for i in range(4)
    )
    assert components.resolvers(text) == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]


def test_components_listen_where_no_other_cluster_does() -> None:
    files = ControlPlaneFiles(Path("/state"))
    one = components.apiserver_command(Path("/kube"), files, AddressPlan(0))
    two = components.apiserver_command(Path("/kube"), files, AddressPlan(1))
    assert "--bind-address=10.88.0.1" in one
    assert "--bind-address=10.88.1.1" in two
    assert "--etcd-servers=http://127.88.1.1:2379" in two
    controllers = components.controllers_command(Path("/kube"), files, PLAN, grace_seconds=12)
    assert "--node-monitor-grace-period=12s" in controllers


def test_certificates_name_users_groups_and_hosts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.ensure()
    identity = Identity("system:node:n", ["system:nodes"], hosts=["n", "10.0.0.1"])
    certificate_path, key_path = authority.issue("n", identity)
    certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert certificate.subject.rfc4514_string() == "CN=system:node:n,O=system:nodes"
    assert names.get_values_for_type(x509.DNSName) == ["n"]
    assert key_path.stat().st_mode & 0o077 == 0
    certificate.verify_directly_issued_by(
        x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    )
    before = certificate_path.read_bytes()
    authority.ensure()
    authority.issue("n", identity)
    assert certificate_path.read_bytes() == before
    private, public = ensure_signing_key(tmp_path, "tokens")
    assert b"PRIVATE" in private.read_bytes()
    assert b"PUBLIC" in public.read_bytes()


def test_images_are_the_same_each_time_and_name_themselves() -> None:
    archive = images.drakkar_image({"PATH": "/venv/bin:/usr/bin"})
    assert archive == images.drakkar_image({"PATH": "/venv/bin:/usr/bin"})
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:

        def read(name: str) -> bytes:
            member = tar.extractfile(name)
            assert member is not None
            return member.read()

        def blob(descriptor: dict[str, Any]) -> bytes:
            return read("blobs/sha256/" + descriptor["digest"].removeprefix("sha256:"))

        entry = json.loads(read("index.json"))["manifests"][0]
        assert entry["annotations"] == {"io.containerd.image.name": "localhost/drakkar:dev"}
        manifest = json.loads(blob(entry))
        config = json.loads(blob(manifest["config"]))
        layer = blob(manifest["layers"][0])
    assert config["config"]["User"] == "65532:65532"
    assert "PATH=/venv/bin:/usr/bin" in config["config"]["Env"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert members["lib64"].linkname == "usr/lib64"
    assert members["tmp"].mode == 0o1777
    assert "etc/resolv.conf" not in members


def ours(context: str = "drakkar") -> dict[str, Any]:
    return kubeconfig.render(
        context=context, server="https://s", authority=b"a", certificate=b"c", key=b"k"
    )


def theirs(current: str) -> dict[str, Any]:
    return {
        "clusters": [{"name": "other"}],
        "users": [{"name": "other"}],
        "contexts": [{"name": "other"}],
        "current-context": current,
    }


def test_a_users_kubeconfig_is_changed_only_if_ours_is_current() -> None:
    assert kubeconfig.merged(None, ours()) == ours()
    assert kubeconfig.merged(theirs("other"), ours()) is None
    merged = kubeconfig.merged(theirs("drakkar"), ours())
    assert merged is not None
    assert [entry["name"] for entry in merged["contexts"]] == ["other", "drakkar"]
    assert kubeconfig.merged(merged, ours()) == merged
    left = kubeconfig.without(merged, "drakkar")
    assert left is not None
    assert [entry["name"] for entry in left["users"]] == ["other"]
    assert left["current-context"] == ""
    assert kubeconfig.without(ours(), "drakkar") is None


def test_a_published_kubeconfig_is_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".kube/config"
    assert kubeconfig.publish(ours())
    assert yaml.safe_load(path.read_text()) == ours()
    assert path.stat().st_mode & 0o077 == 0
    kubeconfig.withdraw("another")
    assert path.exists()
    kubeconfig.withdraw("drakkar")
    assert not path.exists()
    monkeypatch.setenv("KUBECONFIG", "/elsewhere")
    assert not kubeconfig.publish(ours())


def test_context_names_are_recognisably_ours() -> None:
    assert kubeconfig.context_name("drakkar") == "drakkar"
    assert kubeconfig.context_name("trial") == "drakkar-trial"


def claim(**spec: object) -> dict[str, Any]:
    return {
        "metadata": {"uid": "u1", "name": "c", "namespace": "ns"},
        "spec": {
            "storageClassName": "drakkar-shared",
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            **spec,
        },
    }


def test_new_claims_get_a_volume_once() -> None:
    folder = Path("/volumes")
    work = storage.plan([claim()], [], folder)
    assert work.create[0]["spec"]["hostPath"]["path"] == "/volumes/pvc-u1"
    assert work.create[0]["spec"]["claimRef"]["uid"] == "u1"
    assert storage.plan([claim()], work.create, folder).create == []


@pytest.mark.parametrize(
    "spec",
    [{"storageClassName": "other"}, {"volumeName": "pvc-u1"}, {"volumeMode": "Block"}],
)
def test_other_claims_are_left_alone(spec: dict[str, object]) -> None:
    assert storage.plan([claim(**spec)], [], Path("/v")).create == []


@pytest.mark.parametrize(
    ("phase", "deleted"), [("Released", True), ("Bound", False), ("Available", False)]
)
def test_volumes_go_with_their_claim(phase: str, deleted: bool) -> None:
    volume = storage.volume_for(claim(), Path("/v")) | {"status": {"phase": phase}}
    assert storage.plan([], [volume], Path("/v")).delete == (["pvc-u1"] if deleted else [])
    volume["metadata"]["annotations"] = {}
    assert storage.plan([], [volume], Path("/v")).delete == []


def test_fake_nodes_stand_in_racks_of_eight() -> None:
    node = fake.fake_node(70, gpus=4)
    assert node["metadata"]["labels"]["topology.drakkar.dev/rack"] == "fake-rack-0008"
    assert node["metadata"]["labels"]["topology.drakkar.dev/block"] == "fake-block-001"
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "4"


def test_leases_of_many_fake_nodes_are_renewed_rarely_and_never_missed() -> None:
    assert fake.grace_seconds(0) == fake.grace_seconds(100) == 12
    for nodes in (0, 100, 1000, 10000):
        assert fake.grace_seconds(nodes) > 2 * fake.lease_seconds(nodes) / 4
        assert nodes / (fake.lease_seconds(nodes) / 4) <= 25


def test_nodes_are_declared_with_their_taints() -> None:
    node = node_object(NodeSpec(name="n", taints=[Taint(key="k", value="v")]))
    assert node["spec"]["taints"] == [{"key": "k", "value": "v", "effect": "NoSchedule"}]
    assert "spec" not in node_object(NodeSpec(name="n"))


def test_go_modules_versions_and_flags() -> None:
    go_mod = (
        "module drakkar.dev/local\n\ngo 1.26.0\n\nrequire (\n\tk8s.io/kubernetes v1.37.2\n)\n"
        "require helm.sh/helm/v4 v4.3.1 // indirect\n"
        "require (\n\tsigs.k8s.io/kwok v0.8.0 // indirect\n)\n"
        "replace k8s.io/api => k8s.io/api v0.37.2\n"
    )
    versions = required_versions(go_mod)
    assert versions == {
        "k8s.io/kubernetes": "v1.37.2",
        "helm.sh/helm/v4": "v4.3.1",
        "sigs.k8s.io/kwok": "v0.8.0",
    }
    assert "-X k8s.io/component-base/version.gitMinor=37" in link_flags(versions)
    assert "-trimpath" in build_flags(versions)
    assert not [flag for flag in build_flags(versions) if flag.startswith("-tags")]


@pytest.mark.parametrize("module", MODULES)
def test_each_module_says_what_its_programs_tell_and_leave_out(module: Module) -> None:
    assert "// indirect" not in " ".join(module.versions().values())
    flags = module.flags()
    (linking,) = [flag for flag in flags if flag.startswith("-ldflags")]
    own = {"kube": "client-go/pkg/version.gitVersion", "containerd": "/v2/version.Version"}
    for wanted in (name for program, name in own.items() if program in module.packages):
        assert f"{wanted}=v" in linking
    assert [flag for flag in flags if flag.startswith("-tags")] == (
        [f"-tags={','.join(module.tags)}"] if module.tags else []
    )
    names = [name for name, _ in module.source_files()]
    assert {"flags", "go.mod", "go.sum"} <= set(names)


def test_programs_are_named_after_their_packages() -> None:
    """`go build -o folder/` names them so."""
    for name, package in PACKAGES.items():
        assert package.rpartition("/")[2] == name


def test_builds_are_kept_by_all_that_goes_into_them() -> None:
    key = cache_key([("a", b"1"), ("b", b"2")], "go1.26")
    assert key == cache_key([("b", b"2"), ("a", b"1")], "go1.26")
    others = [
        cache_key([("a", b"1"), ("b", b"3")], "go1.26"),
        cache_key([("a", b"1"), ("c", b"2")], "go1.26"),
        cache_key([("a", b"1"), ("b", b"2")], "go1.27"),
    ]
    assert key not in others


def test_go_versions_are_read() -> None:
    assert parse_go_version("go version go1.26.8 linux/amd64") == (1, 26)
    assert parse_go_version("none") == (0, 0)


def test_the_machine_is_read() -> None:
    assert host.parse_capabilities("Name:\tx\nCapEff:\t0000000001000000\n") == 1 << 24
    assert host.parse_memory("MemTotal:       2048 kB\n") == 2 * 2**20


def test_settings_are_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, folder, record = tmp_path / "sys", tmp_path / "kubelet", tmp_path / "host.json"
    for name, value in (("net/ipv4/ip_forward", "0\n"), ("kernel/panic", "1\n")):
        (kernel / name).parent.mkdir(parents=True, exist_ok=True)
        (kernel / name).write_text(value)
    monkeypatch.setattr(host, "_KERNEL", kernel)
    monkeypatch.setattr(host, "KUBELET_FOLDER", folder)
    host.restore(record)
    host.prepare(record)
    assert (kernel / "net/ipv4/ip_forward").read_text() == "1"
    assert folder.is_dir()
    # A kubelet does this.
    (kernel / "kernel/panic").write_text("10")
    # A second cluster must not take the changed values for those found.
    host.prepare(record)
    host.restore(record)
    assert (kernel / "net/ipv4/ip_forward").read_text() == "0"
    assert (kernel / "kernel/panic").read_text() == "1"
    assert not folder.exists()
    assert not record.exists()


def test_missing_packages_are_named_once() -> None:
    needed = {"sh": "dash", "no-such": "gone", "/no/such": "gone", "/bin": "base"}
    assert packages.missing_packages(needed) == ["gone"]


def test_paths_with_spaces_are_mounted() -> None:
    text = fstab({Path("/a b"): Path("/var/log")})
    assert text.splitlines()[1] == r"/a\040b /var/log none bind 0 0"


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "../x", "x" * 21])
def test_names_that_would_not_work_are_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="is no cluster name"):
        ClusterPaths.of(name)


def test_nodes_keep_their_numbers() -> None:
    record = ClusterState(
        name="c", provider="upstream", owner={}, boot="", topology=default_topology(1)
    )
    assert [record.number(name) for name in ("a", "b", "a")] == [1, 2, 1]
    del record.numbers["a"]
    assert record.number("c") == 1


def test_pods_find_the_environment_wherever_the_checkout_lies() -> None:
    """A checkout below /tmp is hidden in pods by their own /tmp."""
    places = {str(mount.destination): mount.source for mount in runtime.host_mounts()}
    assert not runtime.python_in_pods().startswith("/tmp")
    variables = runtime.environment_in_pods()
    assert variables["PATH"].split(":")[0] == str(Path(runtime.python_in_pods()).parent)
    source = Path(runtime.__file__).parents[2]
    assert places["/opt/drakkar/src/api"] == source
    assert "/opt/drakkar/src/api" in variables["PYTHONPATH"].split(":")
