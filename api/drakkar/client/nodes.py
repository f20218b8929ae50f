"""Nodes, as far as commands look at them and change them."""

from collections.abc import Mapping, Sequence
from typing import Any

from drakkar.client.transport import MERGE, Object, Transport, path_of

STRATEGIC = "application/strategic-merge-patch+json"


class Nodes:
    """The nodes of a cluster. Methods raise drakkar.client.ClientError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Object]:
        """All nodes, by name."""
        found = self._transport.request("GET", _path(), target="nodes")
        items: list[Object] = found.get("items", [])
        return sorted(items, key=lambda node: str(node["metadata"]["name"]))

    def get(self, name: str) -> Object:
        """A node."""
        return self._transport.request("GET", _path(name), target=f"node {name}")

    def label(self, name: str, labels: Mapping[str, str | None]) -> Object:
        """Set labels; None takes one away."""
        return self._patch(name, {"metadata": {"labels": dict(labels)}})

    def set_taints(self, node: Object, taints: Sequence[Mapping[str, Any]]) -> Object:
        """Replace the taints of a node that was read; refused if it has changed since."""
        meta = node["metadata"]
        version = {"resourceVersion": meta["resourceVersion"]}
        return self._patch(meta["name"], {"metadata": version, "spec": {"taints": list(taints)}})

    def set_condition(self, name: str, condition: Mapping[str, str]) -> Object:
        """Set one condition, by its type."""
        return self._transport.request(
            "PATCH",
            _path(name, "status"),
            target=f"status of node {name}",
            body={"status": {"conditions": [dict(condition)]}},
            content_type=STRATEGIC,
        )

    def _patch(self, name: str, change: Object) -> Object:
        return self._transport.request(
            "PATCH", _path(name), target=f"node {name}", body=change, content_type=MERGE
        )


def _path(*parts: str) -> str:
    return path_of("api", "v1", "nodes", *parts)
