"""Where the API server is and who we are, from a kubeconfig or the pod's service account."""

import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import Configuration

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_LIFETIME = 60.0


@dataclass(frozen=True, slots=True)
class Connection:
    """Everything a client needs to speak to one API server."""

    server: str
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True
    authorization: Callable[[], Awaitable[str | None]] | None = None
    """Gives the current Authorization header, such as "Bearer ...", or None."""

    def ssl_context(self) -> ssl.SSLContext | bool:
        """TLS settings for aiohttp; True where the server speaks plain HTTP."""
        if not self.server.startswith("https"):
            return True
        context = ssl.create_default_context(cafile=self.ca_file)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context


async def load_connection(kubeconfig: str | None = None) -> Connection:
    """Connection of the given kubeconfig, else of $KUBECONFIG or ~/.kube/config outside a cluster.

    Raises kubernetes.aio.config.ConfigException if none of them works.
    """
    if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        return _in_cluster()
    settings = Configuration()
    await kubernetes_config.load_kube_config(  # type: ignore[no-untyped-call]
        config_file=kubeconfig, client_configuration=settings
    )

    async def authorization() -> str | None:
        # Runs exec plugins and refreshes tokens where the kubeconfig says so.
        return await settings.get_api_key_with_prefix("BearerToken")

    return Connection(
        server=settings.host.rstrip("/"),
        ca_file=settings.ssl_ca_cert,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
        verify=settings.verify_ssl,
        authorization=authorization,
    )


def _in_cluster() -> Connection:
    settings = Configuration()
    kubernetes_config.load_incluster_config(  # type: ignore[no-untyped-call]
        client_configuration=settings
    )
    token = _TokenFile(_SERVICE_ACCOUNT / "token")
    return Connection(
        server=settings.host.rstrip("/"),
        ca_file=settings.ssl_ca_cert,
        authorization=token.header,
    )


class _TokenFile:
    """A projected token, read again every minute: the kubelet rotates it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header = ""
        self._read_at = float("-inf")

    async def header(self) -> str:
        if time.monotonic() - self._read_at > _TOKEN_LIFETIME:
            self._header = f"Bearer {self._path.read_text().strip()}"
            self._read_at = time.monotonic()
        return self._header
