"""API keys, and what each may use per minute."""

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from drakkar_workers.errors import ConfigError
from drakkar_workers.serve.server.errors import too_many, unauthorized

RELOAD_SECONDS = 5.0
"""Between two looks at the file of keys."""

logger = logging.getLogger(__name__)


class Key(BaseModel):
    """One line of the file of keys; limits that are missing do not limit."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=128)]
    key: Annotated[str, Field(min_length=8, max_length=512)]
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None


class KeyFile(BaseModel):
    """``{"keys": [{"name": "team-a", "key": "...", "requests_per_minute": 60}]}``."""

    model_config = ConfigDict(extra="forbid")

    keys: Annotated[list[Key], Field(min_length=1, max_length=10_000)]


@dataclass(slots=True)
class Bucket:
    """Fills evenly up to a minute's worth; may be overdrawn by what was not known before."""

    per_minute: int
    level: float
    at: float

    def wait(self, amount: float, now: float) -> float:
        """Seconds until ``amount`` may be taken, or until it is full if that is more."""
        self.level = min(self.per_minute, self.level + (now - self.at) * self.per_minute / 60)
        self.at = now
        missing = min(amount, self.per_minute) - self.level
        return max(0.0, missing * 60 / self.per_minute)

    def take(self, amount: float) -> None:
        """Take it, also below zero."""
        self.level -= amount


class Client:
    """Who asks."""

    def __init__(self, key: Key | None, clock: Callable[[], float]) -> None:
        self.key = key
        self.name = key.name if key else "anonymous"
        self._clock = clock
        now = clock()
        per_minute = (key.requests_per_minute, key.tokens_per_minute) if key else (None, None)
        self._requests, self._tokens = (
            None if limit is None else Bucket(limit, limit, now) for limit in per_minute
        )

    def admit(self, prompt_tokens: int) -> None:
        """Take a request and its prompt from the limits. Raises ApiError with status 429."""
        now = self._clock()
        if self._requests is not None and (wait := self._requests.wait(1, now)) > 0:
            limit = self._requests.per_minute
            raise too_many(
                f"key {self.name}: over {limit} requests per minute",
                "rate_limit_exceeded",
                math.ceil(wait),
            )
        if self._tokens is not None and (wait := self._tokens.wait(prompt_tokens, now)) > 0:
            limit = self._tokens.per_minute
            raise too_many(
                f"key {self.name}: over {limit} tokens per minute",
                "rate_limit_exceeded",
                math.ceil(wait),
            )
        if self._requests is not None:
            self._requests.take(1)
        self.used(prompt_tokens)

    def used(self, tokens: int) -> None:
        """Tokens that came out; known only afterwards, so they delay the next request."""
        if self._tokens is not None:
            self._tokens.take(tokens)


class Clients:
    """Everyone who may ask; without keys, anyone."""

    def __init__(self, keys: list[Key] | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._anyone = Client(None, clock) if keys is None else None
        self._by_hash: dict[bytes, Client] = {}
        self.replace(keys or [])

    def replace(self, keys: list[Key]) -> None:
        """Other keys from now on. What a key has used counts on if its line is the same."""
        before = self._by_hash
        # By hash, so that a look-up takes as long whatever the guess.
        self._by_hash = {}
        for key in keys:
            digest = _digest(key.key)
            known = before.get(digest)
            same = known is not None and known.key == key
            self._by_hash[digest] = known if known and same else Client(key, self._clock)

    def named(self, name: str) -> Client:
        """Who has this name. Raises ApiError with status 401 where nobody has it any more."""
        known = [self._anyone] if self._anyone is not None else self._by_hash.values()
        for client in known:
            if client.name == name:
                return client
        raise unauthorized(f"no API key is named {name[:128]!r} any more")

    def find(self, authorization: str | None) -> Client:
        """Who sent this header. Raises ApiError with status 401."""
        if self._anyone is not None:
            return self._anyone
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise unauthorized("send an API key: Authorization: Bearer KEY")
        client = self._by_hash.get(_digest(key.strip()))
        if client is None:
            raise unauthorized("the API key is unknown")
        return client


def read_keys(path: Path) -> list[Key]:
    """Raises ConfigError; its text holds no key."""
    try:
        found = KeyFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"file of API keys: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"file of API keys {path}: {place}: {first['msg']}") from None
    return found.keys


async def follow_keys(path: Path, clients: Clients, period: float = RELOAD_SECONDS) -> None:
    """Take changes of the file of keys, for as long as it runs; a file that is wrong changes nothing.

    Kubernetes replaces a mounted Secret by another file, so that none is read half-written.
    """
    last = _state(path)
    while True:
        await asyncio.sleep(period)
        state = _state(path)
        if state in (last, None):
            continue
        last = state
        try:
            keys = read_keys(path)
        except ConfigError as error:
            logger.error("the API keys stay as they are: %s", error)
            continue
        clients.replace(keys)
        logger.info("%d API keys are in force", len(keys))


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
