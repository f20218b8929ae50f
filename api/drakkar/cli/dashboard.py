"""`drakkar dashboard`: a link to the pages of the API server that signs one in."""

from typing import Annotated, Any

import typer
from rich.markup import escape

from drakkar.cli.session import ContextName, Kubeconfig, command, connect, console, errors, fail
from drakkar.client import Client, NotFoundError

SERVER = "drakkar-system/drakkar-server"
"""Where the chart installs the API server by default."""
ACCOUNT = "drakkar-system/dashboard"
"""Made by `drakkar install` on the local cluster."""
HOURS = 12
LOCAL_PORT = 8090


@command
def dashboard(
    account: Annotated[
        str, typer.Option("--as", metavar="NAMESPACE/NAME", help="Service account to sign in as.")
    ] = ACCOUNT,
    server: Annotated[
        str, typer.Option(metavar="NAMESPACE/SERVICE", help="Where the API server is installed.")
    ] = SERVER,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Print a link to the web pages that signs in for 12 hours. Whoever has the link has that right."""
    client = connect(None, kubeconfig, context)
    service = _parts("--server", server)
    who = _parts("--as", account)
    try:
        found = client.read("v1", "Service", service[1], service[0])
    except NotFoundError:
        raise fail(
            f"the cluster has no service {server}: install the pages with 'drakkar install --server' "
            "or the chart's value server.enabled=true"
        ) from None
    try:
        token = client.token(who[1], who[0], seconds=HOURS * 3600)
    except NotFoundError:
        raise fail(
            f"there is no service account {account}: name one of yours with --as NAMESPACE/NAME"
        ) from None
    url = address(found, client.nodes.list())
    if url is None:
        url = f"http://127.0.0.1:{LOCAL_PORT}"
        forward = f"kubectl -n {service[0]} port-forward service/{service[1]} {LOCAL_PORT}:80"
        errors.print(f"Leave this running in another terminal: {escape(forward)}")
    # The token alone, on a line of its own: it can be opened, copied or piped.
    console.print(f"{url}/login#{token}", markup=False)


def hint(client: Client) -> str:
    """Where the pages are, for who has just installed them; "" if they are not there."""
    namespace, name = _parts("--server", SERVER)
    try:
        found = client.read("v1", "Service", name, namespace)
    except NotFoundError:
        return ""
    url = address(found, client.nodes.list())
    where = f" at {url}" if url else ""
    return f"Its pages are{where or ' there'}; 'drakkar dashboard' prints a link that signs you in."


def address(service: Any, nodes: list[Any]) -> str | None:
    """URL of a Service that nodes or a load balancer offer to the outside; None if none does. Pure."""
    spec = service["spec"]
    (port, *_) = spec["ports"]
    balancer = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    for entry in balancer:
        if host := entry.get("hostname") or entry.get("ip"):
            return f"http://{host}:{port['port']}"
    if spec.get("type") == "NodePort" and port.get("nodePort"):
        for node in nodes:
            status = node.get("status") or {}
            conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
            addresses = {a["type"]: a["address"] for a in status.get("addresses") or ()}
            if conditions.get("Ready") == "True" and "InternalIP" in addresses:
                return f"http://{addresses['InternalIP']}:{port['nodePort']}"
    return None


def _parts(option: str, value: str) -> tuple[str, str]:
    namespace, _, name = value.partition("/")
    if not namespace or not name or "/" in name:
        raise fail(f"{option}: write NAMESPACE/NAME (found {value!r})")
    return namespace, name
