"""Pods, as far as commands make and watch them."""

from drakkar.client.errors import NotFoundError
from drakkar.client.transport import Object, Transport, path_of


class Pods:
    """Pods of any namespace. Methods raise drakkar.client.ClientError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def find(self, namespace: str, name: str) -> Object | None:
        """A pod, or None if there is none."""
        try:
            return self._transport.request(
                "GET", _path(namespace, name), target=f"pod {namespace}/{name}"
            )
        except NotFoundError:
            return None

    def create(self, pod: Object) -> Object:
        """Create a pod."""
        meta = pod["metadata"]
        where = meta["namespace"]
        return self._transport.request(
            "POST", _path(where), target=f"pod {where}/{meta['name']}", body=pod
        )

    def delete(self, namespace: str, name: str) -> None:
        """Delete a pod; none is fine."""
        try:
            self._transport.request(
                "DELETE", _path(namespace, name), target=f"pod {namespace}/{name}"
            )
        except NotFoundError:
            return

    def on_node(self, node: str) -> list[Object]:
        """All pods that are bound to a node."""
        found = self._transport.request(
            "GET",
            path_of("api", "v1", "pods"),
            target=f"pods on {node}",
            query={"fieldSelector": f"spec.nodeName={node}"},
        )
        items: list[Object] = found.get("items", [])
        return items


def _path(*parts: str) -> str:
    return path_of("api", "v1", "namespaces", parts[0], "pods", *parts[1:])
