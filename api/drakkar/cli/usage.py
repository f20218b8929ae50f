"""``drakkar usage``: who held how much for how long, as Drakkar's server remembers it."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import httpx
import typer

from drakkar.cli.live import OutputOption, write
from drakkar.cli.session import ContextName, Kubeconfig, command, fail
from drakkar.client.kubeconfig import load


class By(StrEnum):
    """What usage is summed over."""

    NAMESPACE = "namespace"
    QUEUE = "queue"
    USER = "user"


@command
def usage(
    server: Annotated[
        str,
        typer.Option(envvar="DRAKKAR_SERVER", help="URL of Drakkar's server, which keeps history."),
    ] = "http://127.0.0.1:8090",
    token: Annotated[
        str | None,
        typer.Option(
            envvar="DRAKKAR_TOKEN", help="Token of the cluster; the kubeconfig's unless set."
        ),
    ] = None,
    by: Annotated[By, typer.Option(help="Sum over this.")] = By.NAMESPACE,
    days: Annotated[int, typer.Option(min=1, max=366, help="Up to now.")] = 30,
    output: OutputOption = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Show hours of devices and cores that jobs held, also jobs that are deleted."""
    secret = token or _token(kubeconfig, context)
    start = datetime.now(UTC) - timedelta(days=days)
    try:
        answer = httpx.get(
            f"{server.rstrip('/')}/api/v1/usage",
            params={"by": by.value, "start": start.isoformat()},
            headers={"Authorization": f"Bearer {secret}"},
            timeout=30,
        )
        found: Any = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise fail(
            f"Drakkar's server at {server} does not answer ({error}). Say where it is: --server URL; "
            "from outside the cluster: "
            "kubectl -n drakkar-system port-forward service/drakkar-server 8090:80"
        ) from None
    if answer.status_code != 200:
        detail = found.get("detail") if isinstance(found, dict) else None
        raise fail(f"{server}: {detail or f'HTTP status {answer.status_code}'}")
    records = [
        {
            by.value: row.get(by.value) or "",
            "resource": row["resource"],
            "hours": row["seconds"] / 3600,
        }
        for row in found
    ]
    headers = {by.value: by.value.upper(), "resource": "RESOURCE", "hours": "HOURS"}
    write(records, headers, output, f"Nothing was used in the last {days} days.")


def _token(kubeconfig: str | None, context: str | None) -> str:
    """The bearer token of the kubeconfig."""
    found = load(kubeconfig, context).configuration.get_api_key_with_prefix("BearerToken")
    if not found:
        raise fail(
            "The kubeconfig knows you by a certificate, which Drakkar's server can't be shown. Give a "
            "token: DRAKKAR_TOKEN=$(kubectl create token NAME) drakkar usage"
        )
    return str(found).removeprefix("Bearer ")
