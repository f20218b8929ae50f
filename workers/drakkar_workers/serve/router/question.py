"""What the router reads of a request: whom it is from, and what it shares with others."""

import contextlib
import hashlib
import random
from dataclasses import dataclass, field
from typing import Any

import orjson
import xxhash

from drakkar_workers.serve.router.prefix import BLOCK_CHARACTERS, MAX_BLOCKS, blocks

CHARACTERS_PER_TOKEN = 4
SESSION_HEADER = "X-Session-Id"
LONGEST_PROMPT = BLOCK_CHARACTERS * MAX_BLOCKS
_TOKENS_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


@dataclass(frozen=True, slots=True)
class Question:
    """A request as picks and turns see it."""

    client: str = ""
    """Who asks: a hash of the API key, or empty."""
    model: str | None = None
    session: str | None = None
    chain: list[int] = field(default_factory=list)
    """Hashes of the prompt's blocks; see ``prefix``."""
    prompt_tokens: int = 0
    """A guess, for turns only."""
    draw: float = 0.0
    """In [0, 1), the same for all requests of a session: which revision it gets."""


def read(
    body: bytes, *, authorization: str | None, session: str | None, chance: random.Random
) -> Question:
    """Read a body as far as it makes sense: what is wrong with it the engine says best."""
    found: Any = None
    with contextlib.suppress(orjson.JSONDecodeError):
        found = orjson.loads(body) if body else None
    fields: dict[str, Any] = found if isinstance(found, dict) else {}
    model = fields.get("model")
    model = model if isinstance(model, str) else None
    text = prompt_of(fields)
    salt = fields.get("cache_salt")
    return Question(
        client=hashlib.sha256(authorization.encode()).hexdigest()[:16] if authorization else "",
        model=model,
        session=session,
        chain=blocks(f"{model}\0{salt if isinstance(salt, str) else ''}", text),
        prompt_tokens=len(body) // CHARACTERS_PER_TOKEN,
        draw=chance.random() if session is None else _draw(session),
    )


def prompt_of(fields: dict[str, Any]) -> str:
    """The beginning of a prompt as one text, such that equal prompts have equal texts."""
    parts: list[str] = []
    length = 0
    messages = fields.get("messages")
    pieces: list[Any]
    if isinstance(messages, list):
        tools = fields.get("tools")
        # Templates put tools into the system message.
        pieces = ([orjson.dumps(tools).decode()] if tools else []) + messages
    else:
        prompt: Any = fields.get("prompt", fields.get("input"))
        pieces = prompt if isinstance(prompt, list) else [prompt]
        if pieces and isinstance(pieces[0], int):
            # As many characters each as a token of text has on average.
            ids = [one for one in pieces[: LONGEST_PROMPT // 4] if isinstance(one, int)]
            return "".join(f"{one & 0xFFFF:04x}" for one in ids)
    for piece in pieces:
        text = _text(piece)
        parts.append(text)
        length += len(text)
        if length > LONGEST_PROMPT:
            break
    return "".join(parts)


def _text(piece: Any) -> str:
    if isinstance(piece, str):
        return piece
    if not isinstance(piece, dict):
        return "" if piece is None else str(piece)[:LONGEST_PROMPT]
    content = piece.get("content")
    if not isinstance(content, str):
        content = orjson.dumps(content).decode()
    return f"<{piece.get('role')}>{content}"


def _draw(session: str) -> float:
    return xxhash.xxh3_64_intdigest(session.encode(errors="surrogatepass")) / 2**64
