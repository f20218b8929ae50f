"""Endpoints for operators and tools: models, tokens, adapters, health, metrics."""

import time
from importlib.metadata import version as installed
from pathlib import Path

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from drakkar_workers.serve.server.chat import render
from drakkar_workers.serve.server.errors import ApiError, not_found, unavailable
from drakkar_workers.serve.server.schemas import (
    AdapterBody,
    ChatBody,
    DetokenizeBody,
    TokenizeBody,
)
from drakkar_workers.serve.server.service import SERVICE, parse

_STARTED = int(time.time())


async def models(request: web.Request) -> web.Response:
    """Names that requests may give, adapters among them."""
    service = request.app[SERVICE]
    length = service.engine.ready.max_length if service.engine.ready else None
    data = [
        {
            "id": name,
            "object": "model",
            "created": _STARTED,
            "owned_by": "drakkar",
            "root": service.names[0],
            "parent": service.names[0] if name in service.adapters else None,
            "max_model_len": length,
        }
        for name in (*service.names, *service.adapters)
    ]
    wanted = request.match_info.get("model")
    if wanted is None:
        return _json({"object": "list", "data": data})
    found = next((one for one in data if one["id"] == wanted), None)
    if found is None:
        raise not_found(f"model {wanted[:128]!r} is not served here")
    return _json(found)


async def tokenize(request: web.Request) -> web.Response:
    """Token ids of a text or a conversation."""
    service = request.app[SERVICE]
    body = await parse(request, TokenizeBody)
    if body.messages is not None:
        text = render(service, ChatBody(messages=body.messages))
        ids = await service.encode(text, special=False)
    else:
        ids = await service.encode(body.prompt or "", special=body.add_special_tokens)
    length = service.engine.ready.max_length if service.engine.ready else None
    return _json({"tokens": ids, "count": len(ids), "max_model_len": length})


async def detokenize(request: web.Request) -> web.Response:
    """The text of token ids."""
    service = request.app[SERVICE]
    body = await parse(request, DetokenizeBody)
    text = service.tokenizer.decode(body.tokens, skip_special_tokens=False)
    return _json({"prompt": text})


async def load_adapter(request: web.Request) -> web.Response:
    """Load a LoRA adapter that lies below the folder of adapters."""
    service = request.app[SERVICE]
    body = await parse(request, AdapterBody)
    if service.adapters_folder is None:
        raise ApiError("adapters are off: start the server with --adapters FOLDER", status=403)
    if body.lora_path is None:
        raise ApiError("lora_path is required", param="lora_path")
    if body.lora_name in service.names:
        raise ApiError(f"{body.lora_name} is the model's own name", param="lora_name")
    root = service.adapters_folder.resolve()
    folder = (root / body.lora_path).resolve()
    # A client names a folder on the server: never one outside the place meant for it.
    if not folder.is_relative_to(root):
        raise ApiError("lora_path leads out of the folder of adapters", param="lora_path")
    await service.engine.adapter(body.lora_name, str(folder))
    service.adapters[body.lora_name] = str(folder)
    return web.Response(text=f"adapter {body.lora_name} is loaded\n")


async def unload_adapter(request: web.Request) -> web.Response:
    """Forget an adapter."""
    service = request.app[SERVICE]
    body = await parse(request, AdapterBody)
    if body.lora_name not in service.adapters:
        raise not_found(f"adapter {body.lora_name} is not loaded")
    await service.engine.adapter(body.lora_name, None)
    del service.adapters[body.lora_name]
    return web.Response(text=f"adapter {body.lora_name} is unloaded\n")


async def health(request: web.Request) -> web.Response:
    """Ready: the model is loaded, the engine's loop runs, and no drain has begun."""
    service = request.app[SERVICE]
    if service.draining:
        raise unavailable("the server is being drained")
    if not service.engine.alive:
        reason = "the model is being loaded" if service.engine.ready is None else "it is silent"
        raise unavailable(service.engine.failure or reason)
    return web.Response(text="ok\n")


async def live(request: web.Request) -> web.Response:
    """Worth keeping: loading, serving or draining, but not dead."""
    engine = request.app[SERVICE].engine
    if engine.failure is not None or (engine.ready is not None and not engine.alive):
        raise unavailable(engine.failure or "the engine is silent")
    return web.Response(text="ok\n")


async def metrics(request: web.Request) -> web.Response:
    """For Prometheus."""
    body = generate_latest(request.app[SERVICE].metrics.registry)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def version(_request: web.Request) -> web.Response:
    """The installed version."""
    return _json({"version": installed("drakkar")})


def adapters_below(folder: Path) -> list[str]:
    """Adapters that a folder holds, by the names of their folders."""
    return sorted(path.parent.name for path in folder.glob("*/adapter_config.json"))


def _json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
