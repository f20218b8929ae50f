"""Requests to the API server and its answers as plain objects."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import urllib3
from kubernetes.client.rest import RESTClientObject

from drakkar.client.errors import ClientError, UnreachableError, from_status
from drakkar.client.kubeconfig import Connection

Object = dict[str, Any]

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
# An API server that is overloaded, or still fills the cache of a kind, says so by Retry-After and has
# done nothing: any request may be sent again. All other failures are the caller's to judge.
_RETRIES: Final = urllib3.Retry(
    total=10,
    connect=0,
    read=0,
    redirect=False,
    other=0,
    allowed_methods=None,
    raise_on_status=False,
    retry_after_max=5,
)


class Transport:
    """HTTP with the credentials of a connection; safe to use from several threads."""

    def __init__(self, connection: Connection) -> None:
        configuration = connection.configuration
        self._configuration = configuration
        self._server = configuration.host.rstrip("/")
        # Streams of logs hold a connection each.
        configuration.connection_pool_maxsize = 64
        self._pool = RESTClientObject(configuration).pool_manager

    def request(
        self,
        method: str,
        path: str,
        *,
        target: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        failure: Callable[[int, Object | None, str], ClientError] = from_status,
        read_timeout: float = 30.0,
    ) -> Object:
        """The answer's JSON object. Raises ClientError; target names the object in its message.

        failure: the error for an answer of 400 and more: (status, its JSON object, target).
        """
        timeout = urllib3.Timeout(connect=5.0, read=read_timeout)
        response = self._open(method, path, query, body, content_type, timeout)
        try:
            text = response.data
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(error) from None
        if response.status >= 400:
            raise failure(response.status, _json(text), target)
        return _json(text) or {}

    def lines(
        self,
        path: str,
        *,
        target: str,
        query: Mapping[str, str] | None = None,
        read_timeout: float | None = None,
    ) -> Iterator[str]:
        """The answer's lines as they come, without their ends.

        read_timeout: seconds of silence after which UnreachableError is raised; None: never.
        """
        timeout = urllib3.Timeout(connect=5.0, read=read_timeout)
        response = self._open("GET", path, query, None, "application/json", timeout)
        try:
            if response.status >= 400:
                raise from_status(response.status, _json(response.data), target)
            rest = b""
            for chunk in response.stream(65_536):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
            if rest:
                yield rest.decode(errors="replace")
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(error) from None
        finally:
            response.close()

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str,
        timeout: urllib3.Timeout,
    ) -> urllib3.BaseHTTPResponse:
        url = f"{self._server}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "User-Agent": "drakkar-cli"}
        if token := self._configuration.get_api_key_with_prefix("BearerToken"):
            headers["Authorization"] = token
        content = None
        if body is not None:
            headers["Content-Type"] = content_type
            content = json.dumps(body)
        try:
            response: urllib3.BaseHTTPResponse = self._pool.request(
                method,
                url,
                body=content,
                headers=headers,
                timeout=timeout,
                preload_content=False,
                retries=_RETRIES,
            )
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(error) from None
        return response

    def _unreachable(self, error: Exception) -> ClientError:
        cause = getattr(error, "reason", None) or error
        text = str(cause).split(": ", 1)[-1] if ": " in str(cause) else str(cause)
        return UnreachableError(
            f"The cluster at {self._server} does not answer ({text}). "
            "Is it up? For the cluster on this machine: drakkar cluster status"
        )


def path_of(*parts: str) -> str:
    """A URL path of parts, each quoted."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _json(text: bytes) -> Object | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
