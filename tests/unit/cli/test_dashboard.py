"""A link to the pages: where they are found, and what is said where they are not."""

from typing import Any

SERVICE = "/api/v1/namespaces/drakkar-system/services/drakkar-server"
TOKEN = "/api/v1/namespaces/drakkar-system/serviceaccounts/dashboard/token"
KINDS = {
    "resources": [
        {"name": "services", "kind": "Service", "namespaced": True},
        {"name": "services/status", "kind": "Service", "namespaced": True},
    ]
}


def node(name: str, address: str, ready: str = "True") -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready}]
    addresses = [{"type": "InternalIP", "address": address}]
    return {
        "metadata": {"name": name},
        "status": {"conditions": conditions, "addresses": addresses},
    }


def cluster(api: Any, spec: dict[str, Any], status: dict[str, Any] | None = None) -> None:
    api.on("GET", "/api/v1", KINDS)
    api.on("GET", SERVICE, {"spec": spec, "status": status or {}})
    api.on("POST", TOKEN, {"status": {"token": "t-o.k-e.n"}})
    nodes = [node("a", "10.0.0.1", "False"), node("b", "10.0.0.2")]
    api.on("GET", "/api/v1/nodes", {"items": nodes})


def test_a_node_port_is_reached_on_a_node_that_is_ready(api: Any, drakkar: Any) -> None:
    cluster(api, {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30890}]})
    found = drakkar("dashboard")
    assert found.exit_code == 0, found.output
    assert found.stdout == "http://10.0.0.2:30890/login#t-o.k-e.n\n"
    ((_, _, body),) = api.sent("POST")
    assert body["spec"]["expirationSeconds"] == 12 * 3600


def test_a_load_balancer_is_named_as_it_is_known(api: Any, drakkar: Any) -> None:
    ingress = {"loadBalancer": {"ingress": [{"hostname": "drakkar.example.com"}]}}
    cluster(api, {"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30890}]}, ingress)
    assert drakkar("dashboard").stdout.startswith("http://drakkar.example.com:80/login#")


def test_a_service_of_the_inside_is_forwarded(api: Any, drakkar: Any) -> None:
    cluster(api, {"type": "ClusterIP", "ports": [{"port": 80}]})
    found = drakkar("dashboard")
    assert found.stdout == "http://127.0.0.1:8090/login#t-o.k-e.n\n"
    assert "kubectl -n drakkar-system port-forward service/drakkar-server 8090:80" in found.stderr


def test_what_is_missing_is_named(api: Any, drakkar: Any) -> None:
    api.on("GET", "/api/v1", KINDS)
    api.refuse("GET", SERVICE, 404, reason="NotFound", details={"name": "drakkar-server"})
    found = drakkar("dashboard")
    assert found.exit_code == 1
    assert "drakkar install --server" in found.stderr
    wrong = drakkar("dashboard", "--as", "me")
    assert "--as: write NAMESPACE/NAME (found 'me')" in wrong.stderr


def test_an_account_that_does_not_exist_is_asked_for(api: Any, drakkar: Any) -> None:
    api.on("GET", "/api/v1", KINDS)
    api.on("GET", SERVICE, {"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}})
    api.refuse("POST", TOKEN, 404, reason="NotFound", details={"name": "dashboard"})
    found = drakkar("dashboard")
    assert found.exit_code == 1
    assert "no service account drakkar-system/dashboard" in found.stderr
