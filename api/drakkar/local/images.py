"""Container images made from nothing: no registry, no Docker, no Debian bootstrap.

The image for Drakkar's pods holds only what a file system needs so that the host's `/usr` and
the Python environment can be mounted into it; see `runtime`.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PAUSE_IMAGE = "localhost/pause:1"
DRAKKAR_IMAGE = "localhost/drakkar:dev"

USER_ID = 65532
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an image: a folder, a link when `target` is set, else a file."""

    path: str
    content: bytes | None = None
    target: str | None = None
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How containers of an image start unless the pod says otherwise."""

    command: list[str]
    user: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def drakkar_files() -> list[Entry]:
    """The files of Drakkar's image: users, name lookup, merged /usr, and empty mount points."""
    passwd = (
        "root:x:0:0:root:/root:/bin/sh\n"
        f"drakkar:x:{USER_ID}:{USER_ID}:Drakkar:/tmp:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
    group = f"root:x:0:\ndrakkar:x:{USER_ID}:\nnogroup:x:65534:\n"
    nsswitch = "passwd: files\ngroup: files\nhosts: files dns\n"
    folders = ["etc", "usr", "proc", "sys", "dev", "run", "var", "root", "opt", "home"]
    return [
        *(Entry(folder) for folder in folders),
        Entry("tmp", mode=0o1777),
        Entry("var/tmp", mode=0o1777),
        *(Entry(name, target=f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64")),
        Entry("etc/passwd", content=passwd.encode(), mode=0o644),
        Entry("etc/group", content=group.encode(), mode=0o644),
        Entry("etc/nsswitch.conf", content=nsswitch.encode(), mode=0o644),
    ]


def drakkar_image(environment: Mapping[str, str]) -> bytes:
    """Drakkar's image: a shell as an ordinary user, with these variables."""
    config = ImageConfig(
        command=["/bin/sh"],
        user=f"{USER_ID}:{USER_ID}",
        environment={
            **environment,
            "LANG": "C.UTF-8",
            # The environment is mounted read-only: byte code could not be written anyway.
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        },
    )
    return image_archive(DRAKKAR_IMAGE, drakkar_files(), config)


def pause_image(program: bytes) -> bytes:
    """The image of the container that holds a pod's namespaces open."""
    files = [Entry("pause", content=program)]
    return image_archive(PAUSE_IMAGE, files, ImageConfig(command=["/pause"], user="65535:65535"))


def image_archive(name: str, files: Iterable[Entry], config: ImageConfig) -> bytes:
    """An image as a tar archive in OCI layout; the same input always gives the same bytes."""
    layer = _tar(files)
    blobs: dict[str, bytes] = {}

    def descriptor(media_type: str, content: bytes) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    machine = platform.machine()
    image = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {
            "Cmd": config.command,
            "User": config.user,
            "Env": [f"{key}={value}" for key, value in config.environment.items()],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", _json(image)),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    }
    entry = descriptor("application/vnd.oci.image.manifest.v1+json", _json(manifest))
    entry["annotations"] = {"io.containerd.image.name": name}
    index = {"schemaVersion": 2, "manifests": [entry]}
    members = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json(index),
        **blobs,
    }
    return _tar(Entry(path, content=content, mode=0o644) for path, content in members.items())


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _tar(entries: Iterable[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.path)
            info.mode = entry.mode
            if entry.target is not None:
                info.type = tarfile.SYMTYPE
                info.linkname = entry.target
                archive.addfile(info)
            elif entry.content is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size = len(entry.content)
                archive.addfile(info, io.BytesIO(entry.content))
    return buffer.getvalue()
