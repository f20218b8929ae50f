"""By what routers know the operator.

Each service has a token of its own, made from one key of the operator and the service's UID. Routers
are told its digest alone, so no namespace holds anything worth stealing: who reads a router's
Deployment can't speak for the operator. The key lies in a Secret beside the operator, made when the
first service is looked at; the next leader finds it there. Another key (delete the Secret and restart
the operator) replaces all routers, one after the other.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
from typing import Final

from drakkar.constants import MANAGED_BY
from drakkar.kube.rest import ApiError, Object
from drakkar_operator.cluster import paths
from drakkar_operator.cluster.executor import Executor

KEY_BYTES: Final = 32
FIELD: Final = "key"


class RouterKeys:
    """Tokens of services, once ``load`` is through."""

    def __init__(self, executor: Executor, *, namespace: str, name: str) -> None:
        """``namespace`` and ``name`` are the Secret's."""
        self._executor = executor
        self._collection = paths.secrets(namespace)
        self._metadata = {"name": name, "namespace": namespace, "labels": dict(MANAGED_BY)}
        self._key: bytes | None = None
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Find the key or make it. Raises ApiError, and NotLeaderError where it is to be made."""
        async with self._lock:
            if self._key is None:
                self._key = _key_of(await self._secret())

    def token(self, uid: str) -> str:
        """What the operator shows to the routers of a service."""
        assert self._key is not None, "load() comes first"
        return hmac.new(self._key, uid.encode(), hashlib.sha256).hexdigest()

    async def _secret(self) -> Object:
        path = f"{self._collection}/{self._metadata['name']}"
        found = await self._executor.find(path)
        if found is not None:
            return found
        key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": self._metadata,
            "type": "Opaque",
            "data": {FIELD: key},
        }
        try:
            return await self._executor.send("POST", self._collection, body)
        except ApiError as error:
            # Made by a try whose answer was lost, or by the leader before us.
            found = await self._executor.find(path) if error.status == 409 else None
            if found is None:
                raise
            return found


def _key_of(secret: Object) -> bytes:
    try:
        key = base64.b64decode((secret.get("data") or {})[FIELD], validate=True)
    except (KeyError, ValueError):
        key = b""
    if len(key) < KEY_BYTES:
        where = f"{secret['metadata'].get('namespace')}/{secret['metadata']['name']}"
        message = f"Secret {where} has no {FIELD} of {KEY_BYTES} bytes or more; delete it"
        raise ApiError(0, "InvalidKey", message)
    return key
