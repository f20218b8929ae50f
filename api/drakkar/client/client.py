"""The client: one attribute per kind, and the few other requests that commands need."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from drakkar.client.errors import InvalidError, NotInstalledError, from_model, from_service
from drakkar.client.kubeconfig import Connection, load
from drakkar.client.nodes import Nodes
from drakkar.client.pods import Pods
from drakkar.client.resource import CLI_FIELD_MANAGER, ResourceClient
from drakkar.client.transport import APPLY, Object, Transport, path_of
from drakkar.constants import GROUP, LABEL_JOB
from drakkar.v1alpha1 import InferenceService, Queue, Topology, TrainingJob


class Client:
    """Drakkar on one cluster. Methods raise drakkar.client.ClientError."""

    def __init__(self, connection: Connection) -> None:
        self.namespace = connection.namespace
        """Namespace of names that come without one."""
        self._transport = Transport(connection)
        self._resources: dict[str, dict[str, Any]] = {}
        self.training_jobs = ResourceClient(self._transport, TrainingJob, self.namespace)
        self.inference_services = ResourceClient(self._transport, InferenceService, self.namespace)
        self.queues = ResourceClient(self._transport, Queue, self.namespace)
        self.nodes = Nodes(self._transport)
        self.pods_of_nodes = Pods(self._transport)
        self.topologies = ResourceClient(self._transport, Topology, self.namespace)

    @classmethod
    def connect(
        cls,
        kubeconfig: str | None = None,
        *,
        context: str | None = None,
        namespace: str | None = None,
    ) -> Self:
        """The cluster of the kubeconfig given, of $KUBECONFIG, ~/.kube/config or the local one."""
        connection = load(kubeconfig, context)
        if namespace:
            connection = Connection(connection.configuration, namespace, connection.source)
        return cls(connection)

    def server_version(self) -> str:
        """Version of Kubernetes, such as v1.37.2."""
        return str(self._transport.request("GET", "/version", target="/version")["gitVersion"])

    def apply(
        self, manifest: Mapping[str, Any], namespace: str | None = None, *, dry_run: bool = False
    ) -> Object:
        """Create or change an object of any kind by server-side apply, with strict fields.

        dry_run: the API server judges it, but nothing is stored.
        """
        path, target = self._locate(manifest, namespace)
        name = str(manifest.get("metadata", {}).get("name", ""))
        if not name:
            raise InvalidError(f"{target}: metadata.name is missing: give the object a name.")
        return self._transport.request(
            "PATCH",
            path + path_of(name),
            target=f"{target}{name}",
            query=_write_options(dry_run) | {"force": "true"},
            body=dict(manifest),
            content_type=APPLY,
        )

    def create(
        self, manifest: Mapping[str, Any], namespace: str | None = None, *, dry_run: bool = False
    ) -> Object:
        """Create an object of any kind, with strict fields; it must not exist."""
        path, target = self._locate(manifest, namespace)
        name = manifest.get("metadata", {}).get("name", "")
        return self._transport.request(
            "POST",
            path,
            target=f"{target}{name}",
            query=_write_options(dry_run),
            body=dict(manifest),
        )

    def read(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object:
        """An object of any kind; NotFoundError if there is none."""
        path, target = self._locate({"apiVersion": api_version, "kind": kind}, namespace)
        return self._transport.request("GET", path + path_of(name), target=f"{target}{name}")

    def token(self, account: str, namespace: str, *, seconds: int) -> str:
        """A token of a service account that lasts so long, where the cluster allows as much."""
        path = path_of("api", "v1", "namespaces", namespace, "serviceaccounts", account, "token")
        found = self._transport.request(
            "POST",
            path,
            target=f"token of ServiceAccount {namespace}/{account}",
            body={
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": seconds},
            },
        )
        return str(found["status"]["token"])

    def _locate(self, manifest: Mapping[str, Any], namespace: str | None) -> tuple[str, str]:
        """(path of the collection, start of its objects' names in messages)."""
        api_version, kind = str(manifest["apiVersion"]), str(manifest["kind"])
        resource = self._resource(api_version, kind)
        path, target = _group_path(api_version), f"{kind} "
        if resource["namespaced"]:
            where = manifest.get("metadata", {}).get("namespace") or namespace or self.namespace
            path += path_of("namespaces", where)
            target += f"{where}/"
        return path + path_of(resource["name"]), target

    def pods(
        self, job: str, namespace: str | None = None, *, label: str = LABEL_JOB
    ) -> list[Object]:
        """The pods of a TrainingJob or, by another label, of something else; sorted by name."""
        found = self._transport.request(
            "GET",
            path_of("api", "v1", "namespaces", namespace or self.namespace, "pods"),
            target=f"pods of {job}",
            query={"labelSelector": f"{label}={job}"},
        )
        items: list[Object] = found.get("items", [])
        return sorted(items, key=lambda item: str(item["metadata"]["name"]))

    def events(self, namespace: str | None = None, **fields: str) -> list[Object]:
        """Events whose fields match, oldest first; for example ``type="Warning"``.

        ``__`` in a keyword stands for a dot: ``involvedObject__name="train-gpt"``.
        """
        selector = ",".join(f"{key.replace('__', '.')}={value}" for key, value in fields.items())
        found = self._transport.request(
            "GET",
            path_of("api", "v1", "namespaces", namespace or self.namespace, "events"),
            target="events",
            query={"fieldSelector": selector} if selector else {},
        )
        items: list[Object] = found.get("items", [])
        return sorted(items, key=_time_of_event)

    def log_lines(
        self, pod: str, namespace: str | None = None, *, target: str = "", **query: str
    ) -> Iterator[str]:
        """Lines of a container's log; query as the API has it (container, follow, sinceTime...)."""
        where = namespace or self.namespace
        return self._transport.lines(
            path_of("api", "v1", "namespaces", where, "pods", pod, "log"),
            target=target or f"log of pod {where}/{pod}",
            query=query,
            read_timeout=None if query.get("follow") == "true" else 30.0,
        )

    def operator_environment(self, namespace: str) -> dict[str, str]:
        """Environment of the operator's Deployment in a namespace; empty if there is none."""
        found = self._transport.request(
            "GET",
            path_of("apis", "apps", "v1", "namespaces", namespace, "deployments"),
            target=f"the operator in namespace {namespace}",
            query={"labelSelector": "app.kubernetes.io/component=operator"},
        )
        for item in found.get("items", []):
            for container in item["spec"]["template"]["spec"]["containers"]:
                return {e["name"]: str(e.get("value", "")) for e in container.get("env") or ()}
        return {}

    def service(
        self,
        name: str,
        namespace: str,
        port: str,
        path: str,
        *,
        method: Literal["GET", "POST"] = "GET",
        query: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Object:
        """What a Service in the cluster answers, asked through the API server's proxy.

        Needs the right to ``get`` (``create`` for POST) ``services/proxy`` of ``NAME:PORT``.
        """
        service = path_of("api", "v1", "namespaces", namespace, "services", f"{name}:{port}")
        return self._transport.request(
            method,
            f"{service}/proxy{path}",
            target=f"service {namespace}/{name}",
            query=query,
            body=body,
            failure=from_service,
        )

    def ask_service(
        self, name: str, path: str, body: Object, namespace: str | None = None
    ) -> Object:
        """What an InferenceService answers to a request of OpenAI's API, by the API server's proxy.

        Needs the right to ``create`` ``services/proxy``. A service without replicas gets one first.
        """
        where = namespace or self.namespace
        service = path_of("api", "v1", "namespaces", where, "services", f"{name}:http")
        return self._transport.request(
            "POST",
            f"{service}/proxy{path}",
            target=f"InferenceService {where}/{name}",
            body=body,
            failure=from_model,
            read_timeout=600.0,
        )

    def _resource(self, api_version: str, kind: str) -> dict[str, Any]:
        if api_version not in self._resources:
            try:
                found = self._transport.request(
                    "GET", _group_path(api_version), target=f"{kind} ({api_version})"
                )
            except NotInstalledError:
                if api_version.startswith(f"{GROUP}/"):
                    raise
                raise NotInstalledError(
                    f"The cluster knows no kind {kind} of {api_version}: "
                    "correct apiVersion and kind, or install what brings them."
                ) from None
            self._resources[api_version] = {
                item["kind"]: item for item in found["resources"] if "/" not in item["name"]
            }
        resource: dict[str, Any] | None = self._resources[api_version].get(kind)
        if resource is None:
            raise NotInstalledError(f"The cluster knows no kind {kind} of {api_version}.")
        return resource


def _write_options(dry_run: bool) -> dict[str, str]:
    options = {"fieldManager": CLI_FIELD_MANAGER, "fieldValidation": "Strict"}
    return options | ({"dryRun": "All"} if dry_run else {})


def _group_path(api_version: str) -> str:
    parts = api_version.split("/")
    return path_of("apis", *parts) if len(parts) == 2 else path_of("api", *parts)


def _time_of_event(event: Object) -> str:
    return str(
        event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp", "")
    )
