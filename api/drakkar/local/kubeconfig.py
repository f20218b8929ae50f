"""kubeconfig files: making them, and adding ours to the user's without taking theirs over."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import yaml


def context_name(cluster: str) -> str:
    """The context of a cluster: recognisably ours."""
    return cluster if cluster.startswith("drakkar") else f"drakkar-{cluster}"


def render(
    *, context: str, server: str, authority: bytes, certificate: bytes, key: bytes
) -> dict[str, Any]:
    """A kubeconfig with everything in it, so that the file can be carried elsewhere."""

    def data(content: bytes) -> str:
        return base64.b64encode(content).decode()

    cluster = {"server": server, "certificate-authority-data": data(authority)}
    user = {"client-certificate-data": data(certificate), "client-key-data": data(key)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": context, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }


_LISTS = ("clusters", "users", "contexts")


def merged(theirs: dict[str, Any] | None, ours: dict[str, Any]) -> dict[str, Any] | None:
    """The user's kubeconfig with our entries, or None if it must be left alone.

    It is left alone when its current context is another one: then commands would go elsewhere
    than the user expects.
    """
    if not theirs or not theirs.get("contexts"):
        return ours
    context = ours["current-context"]
    if theirs.get("current-context") != context:
        return None
    result = dict(theirs)
    for name in _LISTS:
        others = [entry for entry in theirs.get(name) or [] if entry.get("name") != context]
        result[name] = [*others, *ours[name]]
    return result


def without(theirs: dict[str, Any], context: str) -> dict[str, Any] | None:
    """The user's kubeconfig without our entries; None when nothing else is left."""
    result = dict(theirs)
    for name in _LISTS:
        result[name] = [entry for entry in theirs.get(name) or [] if entry.get("name") != context]
    if result.get("current-context") == context:
        result["current-context"] = ""
    return result if result["contexts"] else None


def write(path: Path, config: dict[str, Any]) -> None:
    """Write a kubeconfig, readable for its owner only, in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.touch(mode=0o600)
    temporary.write_text(yaml.safe_dump(config, sort_keys=False))
    temporary.replace(path)


def user_file() -> Path | None:
    """The user's own kubeconfig; None where KUBECONFIG says they manage that themselves."""
    return None if os.environ.get("KUBECONFIG") else Path.home() / ".kube/config"


def publish(config: dict[str, Any]) -> bool:
    """Make our cluster the user's current one, if that takes nothing from them."""
    path = user_file()
    if path is None:
        return False
    theirs = yaml.safe_load(path.read_text()) if path.exists() else None
    result = merged(theirs, config)
    if result is None:
        return False
    if result != theirs:
        write(path, result)
    return True


def withdraw(context: str) -> None:
    """Take our cluster out of the user's kubeconfig."""
    path = user_file()
    if path is None or not path.exists():
        return
    theirs = yaml.safe_load(path.read_text()) or {}
    if not any(entry.get("name") == context for entry in theirs.get("contexts") or []):
        return
    result = without(theirs, context)
    if result is None:
        path.unlink()
    else:
        write(path, result)
