"""/v1/files and /v1/batches."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import orjson
from aiohttp import BodyPartReader, web
from pydantic import BaseModel, ConfigDict, Field

from drakkar_workers.serve.batch.batches import ENDED, BatchStore
from drakkar_workers.serve.batch.files import FileStore
from drakkar_workers.serve.batch.lines import ENDPOINTS
from drakkar_workers.serve.server.errors import ApiError
from drakkar_workers.serve.server.service import CLIENT, parse

ROOT: web.AppKey[Path] = web.AppKey("files", Path)
UPLOADED = ("batch", "user_data", "fine-tune", "evals")
"""Purposes of files that clients send."""
PAGE, LONGEST_PAGE = 20, 10_000

Item = TypeVar("Item")


class BatchBody(BaseModel):
    """What a client sends to begin a batch."""

    model_config = ConfigDict(extra="ignore")

    input_file_id: Annotated[str, Field(max_length=128)]
    endpoint: Literal[ENDPOINTS]  # type: ignore[valid-type]
    completion_window: Literal["24h"]
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None


def routes() -> list[web.RouteDef]:
    """All of them."""
    return [
        web.post("/v1/files", upload),
        web.get("/v1/files", list_files),
        web.get("/v1/files/{file}", show_file),
        web.delete("/v1/files/{file}", delete_file),
        web.get("/v1/files/{file}/content", content),
        web.post("/v1/batches", create),
        web.get("/v1/batches", list_batches),
        web.get("/v1/batches/{batch}", show_batch),
        web.post("/v1/batches/{batch}/cancel", cancel),
    ]


async def upload(request: web.Request) -> web.Response:
    """Keep a file that comes as multipart/form-data with the fields purpose and file."""
    files = _files(request)
    if request.content_type != "multipart/form-data":
        raise ApiError("send multipart/form-data with the fields purpose and file")
    purpose: str | None = None
    filename: str | None = None
    with files.adding() as upload:
        try:
            async for part in await request.multipart():
                if not isinstance(part, BodyPartReader):
                    raise ApiError("parts within parts are not taken")
                if part.name == "purpose":
                    purpose = (await part.read_chunk(64)).decode(errors="replace")
                elif part.name == "file" and filename is None:
                    filename = (part.filename or "upload")[:256]
                    while piece := await part.read_chunk(1 << 16):
                        upload.write(piece)
        except ValueError as error:
            raise ApiError(f"the form can't be read: {str(error)[:200]}") from None
        if purpose not in UPLOADED:
            known = ", ".join(UPLOADED)
            raise ApiError(f"purpose must be one of {known}", param="purpose")
        if filename is None:
            raise ApiError("the field file is missing", param="file")
        kept = await asyncio.to_thread(upload.keep, filename, purpose)
    return _json(kept.body())


async def list_files(request: web.Request) -> web.Response:
    """A page of the client's files."""
    found = await asyncio.to_thread(_files(request).all)
    purpose = request.query.get("purpose")
    if purpose is not None:
        found = [one for one in found if one.purpose == purpose]
    if request.query.get("order") == "asc":
        found.reverse()
    return _page(request, found, lambda one: one.id, lambda one: one.body())


async def show_file(request: web.Request) -> web.Response:
    """What is known of a file."""
    return _json(_files(request).find(request.match_info["file"]).body())


async def delete_file(request: web.Request) -> web.Response:
    """Delete a file."""
    name = request.match_info["file"]
    _files(request).delete(name)
    return _json({"id": name, "object": "file", "deleted": True})


async def content(request: web.Request) -> web.StreamResponse:
    """The bytes of a file."""
    path = _files(request).content(request.match_info["file"])
    return web.FileResponse(path, headers={"Content-Type": "application/octet-stream"})


async def create(request: web.Request) -> web.Response:
    """Begin a batch."""
    files = _files(request)
    body = await parse(request, BatchBody)
    found = files.find(body.input_file_id)
    if found.purpose != "batch":
        raise ApiError(
            f"file {found.id} has purpose {found.purpose}; a batch reads one of purpose batch",
            param="input_file_id",
        )
    client = request[CLIENT].name
    batch = BatchStore(files).create(client, body.endpoint, found.id, body.metadata or {})
    return _json(batch.body())


async def list_batches(request: web.Request) -> web.Response:
    """A page of the client's batches, the newest first."""
    store = BatchStore(_files(request))
    found = await asyncio.to_thread(store.all)
    return _page(
        request,
        found,
        lambda one: one.id,
        lambda one: one.body(cancelling=store.cancelling(one.id)),
    )


async def show_batch(request: web.Request) -> web.Response:
    """How far a batch is."""
    store = BatchStore(_files(request))
    batch = store.find(request.match_info["batch"])
    return _json(batch.body(cancelling=store.cancelling(batch.id)))


async def cancel(request: web.Request) -> web.Response:
    """Ask a batch to end with what it has."""
    store = BatchStore(_files(request))
    batch = store.find(request.match_info["batch"])
    if batch.status in ENDED:
        raise ApiError(f"batch {batch.id} is {batch.status} already", status=409)
    store.cancel(batch.id)
    return _json(batch.body(cancelling=True))


def _files(request: web.Request) -> FileStore:
    root = request.app.get(ROOT)
    if root is None:
        raise ApiError(
            "files and batches are off: start the server with --files FOLDER", status=501
        )
    return FileStore(root, request[CLIENT].name)


def _page(
    request: web.Request,
    found: Sequence[Item],
    name: Callable[[Item], str],
    body: Callable[[Item], dict[str, Any]],
) -> web.Response:
    limit = request.query.get("limit", str(PAGE))
    if not limit.isascii() or not limit.isdigit() or not 0 < int(limit) <= LONGEST_PAGE:
        raise ApiError(f"limit must be a number from 1 to {LONGEST_PAGE}", param="limit")
    after = request.query.get("after")
    start = 0
    if after is not None:
        start = next((i + 1 for i, one in enumerate(found) if name(one) == after), len(found))
    shown = found[start : start + int(limit)]
    return _json(
        {
            "object": "list",
            "data": [body(one) for one in shown],
            "first_id": name(shown[0]) if shown else None,
            "last_id": name(shown[-1]) if shown else None,
            "has_more": start + len(shown) < len(found),
        }
    )


def _json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
