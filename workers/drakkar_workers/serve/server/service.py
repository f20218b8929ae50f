"""What all endpoints share: the model's names, tokenizer and template, the engine, the clients."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError
from tokenizers import Tokenizer

from drakkar_workers.errors import ConfigError
from drakkar_workers.hf.chat import read_template
from drakkar_workers.serve.engine.engine import MAX_ADAPTERS
from drakkar_workers.serve.server.engine_client import EngineClient
from drakkar_workers.serve.server.errors import ApiError, not_found, unavailable
from drakkar_workers.serve.server.limits import Client, Clients
from drakkar_workers.serve.server.metrics import Metrics

LONG_TEXT = 4096
"""Characters from which on a text is tokenised in a thread."""


class Service:
    """One served model. Raises ConfigError if its tokenizer or template can't be used."""

    def __init__(
        self,
        folder: Path,
        *,
        names: list[str],
        engine: EngineClient,
        clients: Clients,
        timeout: float,
        adapters_folder: Path | None = None,
    ) -> None:
        try:
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises nothing narrower
            raise ConfigError(f"{folder / 'tokenizer.json'}: {error}") from None
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.template = read_template(folder)
        self.names = names
        self.engine = engine
        self.clients = clients
        self.timeout = timeout
        self.adapters_folder = adapters_folder
        self.adapters: dict[str, str] = {}
        """Folders of loaded adapters by name."""
        self.draining = False
        self.closed = False
        """Nothing more is taken."""
        self.idle = asyncio.Event()
        """No handler runs."""
        self.idle.set()
        self._handlers = 0
        self.metrics = Metrics(names[0], lambda: engine.stats, lambda: engine.ready, MAX_ADAPTERS)

    @contextmanager
    def handling(self) -> Iterator[None]:
        """A handler runs; raises ApiError if nothing more is taken."""
        if self.closed:
            raise unavailable("the server is being drained")
        self._handlers += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._handlers -= 1
            if not self._handlers:
                self.idle.set()

    @property
    def max_length(self) -> int:
        """Tokens of prompt and output. Raises ApiError while the model loads."""
        if self.engine.ready is None:
            raise unavailable(self.engine.failure or "the model is being loaded")
        return self.engine.ready.max_length

    def adapter_of(self, model: str | None) -> str | None:
        """The adapter that a model's name means; None for the model itself. Raises ApiError."""
        if model is None or model in self.names:
            return None
        if model in self.adapters:
            return model
        known = ", ".join([*self.names, *self.adapters])
        raise not_found(f"model {model[:128]!r} is not served here; there is {known}")

    async def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text."""
        if len(text) < LONG_TEXT:
            return list(self.tokenizer.encode(text, add_special_tokens=special).ids)
        encoded = await asyncio.to_thread(self.tokenizer.encode, text, add_special_tokens=special)
        return list(encoded.ids)


SERVICE: web.AppKey[Service] = web.AppKey("service", Service)
CLIENT: web.RequestKey[Client] = web.RequestKey("client", Client)


Body = TypeVar("Body", bound=BaseModel)


async def parse(request: web.Request, kind: type[Body]) -> Body:
    """The body of a request. Raises ApiError that names the first field that is wrong."""
    return parse_body(await request.read(), kind)


def parse_body(raw: bytes, kind: type[Body]) -> Body:
    """A body. Raises ApiError that names the first field that is wrong."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise invalid(error) from None
    except RecursionError:
        raise ApiError("the body is nested too deeply") from None


def invalid(error: ValidationError) -> ApiError:
    """What is wrong with a body, in OpenAI's shape."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    # Of a union's branches the one that came furthest is the one that was meant.
    first = max(found, key=lambda one: len(one["loc"]))
    names = [part for part in first["loc"] if isinstance(part, int) or _is_field(part)]
    param = ".".join(str(part) for part in names) or None
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(f"{param}: {message}" if param else message, param=param)


def _is_field(part: str) -> bool:
    """Not the name of a union's branch."""
    return part.isdigit() or (
        part.replace("_", "").isalnum() and part.islower() and part not in {"str", "list"}
    )


def new_id(prefix: str) -> str:
    """A name that no other request has."""
    return f"{prefix}-{uuid.uuid4().hex}"
