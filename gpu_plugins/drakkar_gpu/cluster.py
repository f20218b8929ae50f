"""The few calls that a node's daemon makes to the API server, as its pod's service account."""

import json
import os
import ssl
import time
from pathlib import Path
from typing import Any

import httpx

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_SECONDS = 60.0
"""The kubelet rotates the token: it is read again after so long."""
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
FIELD_MANAGER = "drakkar-devices"

Object = dict[str, Any]


class ApiError(Exception):
    """The API server refused a request or can't be reached; ``status`` is 0 then."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """A connection to the API server."""

    def __init__(self, client: httpx.AsyncClient, token: Path | None = None) -> None:
        self._client = client
        self._token = token
        self._header: dict[str, str] = {}
        self._read_at = float("-inf")

    @classmethod
    def in_cluster(cls) -> "Api":
        """The API server of the cluster that this pod runs in. Raises ApiError outside of one."""
        try:
            host = os.environ["KUBERNETES_SERVICE_HOST"]
            port = os.environ["KUBERNETES_SERVICE_PORT"]
            context = ssl.create_default_context(cafile=SERVICE_ACCOUNT / "ca.crt")
        except (KeyError, OSError) as error:
            raise ApiError(0, f"this is no pod with a service account: {error}") from error
        address = f"[{host}]" if ":" in host else host
        client = httpx.AsyncClient(
            base_url=f"https://{address}:{port}", verify=context, timeout=10, trust_env=False
        )
        return cls(client, SERVICE_ACCOUNT / "token")

    async def close(self) -> None:
        """End the connection."""
        await self._client.aclose()

    async def get(self, path: str, **query: str) -> Object:
        """Read an object or a list. Raises ApiError."""
        return await self._send("GET", path, params=query)

    async def create(self, path: str, obj: Object) -> Object:
        """Create an object. Raises ApiError."""
        return await self._send("POST", path, content=json.dumps(obj), kind="application/json")

    async def replace(self, path: str, obj: Object) -> Object:
        """Replace an object. Raises ApiError."""
        return await self._send("PUT", path, content=json.dumps(obj), kind="application/json")

    async def patch(self, path: str, change: Object, *, kind: str = MERGE) -> Object:
        """Change some fields of an object. Raises ApiError."""
        params = {"fieldManager": FIELD_MANAGER}
        return await self._send("PATCH", path, params=params, content=json.dumps(change), kind=kind)

    async def delete(self, path: str) -> None:
        """Delete an object; absent is fine. Raises ApiError."""
        try:
            await self._send("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise

    async def _send(self, method: str, path: str, *, kind: str = "", **content: Any) -> Object:
        headers = {**self._authorization(), **({"Content-Type": kind} if kind else {})}
        try:
            response = await self._client.request(method, path, headers=headers, **content)
        except httpx.HTTPError as error:
            raise ApiError(0, f"{method} {path}: {error or type(error).__name__}") from error
        if not response.is_success:
            try:
                message = response.json()["message"]
            except (ValueError, KeyError, TypeError):
                message = response.text[:200]
            raise ApiError(response.status_code, f"{method} {path}: {message}")
        answer: Object = response.json()
        return answer

    def _authorization(self) -> dict[str, str]:
        if self._token is not None and time.monotonic() - self._read_at > TOKEN_SECONDS:
            self._header = {"Authorization": f"Bearer {self._token.read_text().strip()}"}
            self._read_at = time.monotonic()
        return self._header
