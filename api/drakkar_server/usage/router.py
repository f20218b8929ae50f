"""Usage: resource-seconds by namespace, queue and user."""

import time
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from drakkar_server.auth.caller import Asking, Caller
from drakkar_server.context import Context, Parts
from drakkar_server.history import queries
from drakkar_server.jobs.router import PLURAL

router = APIRouter(prefix="/api/v1", tags=["usage"])
By = Literal["namespace", "queue", "user"]
FIRST, LAST = 0.0, 4_102_444_800.0


class Usage(BaseModel):
    """What one of them used."""

    namespace: str | None = None
    queue: str | None = None
    user: str | None = None
    resource: str
    seconds: float = Field(description="Devices, or cores of cpu, times seconds.")


async def usage_of(
    caller: Caller, parts: Context, by: list[By], start: float, end: float
) -> list[Usage]:
    """Usage between two times in the namespaces that the user may list. Raises ProblemError."""
    async with parts.history.read() as connection:
        scope = await caller.sees(PLURAL, await queries.namespaces(connection))
        rows = await queries.usage(
            connection, scope, start=start, end=end, by=list(dict.fromkeys(by)), now=time.time()
        )
    return [Usage.model_validate(row) for row in rows]


@router.get("/usage")
async def get_usage(
    caller: Asking,
    parts: Parts,
    by: Annotated[list[By] | None, Query(max_length=3)] = None,
    start: Annotated[datetime | None, Query(description="Default: 30 days ago.")] = None,
    end: Annotated[datetime | None, Query(description="Default: now.")] = None,
) -> list[Usage]:
    """Who held how much for how long, largest first."""
    now = time.time()
    until = min(max(end.timestamp(), FIRST), LAST) if end else now
    since = min(max(start.timestamp(), FIRST), LAST) if start else until - 30 * 86400
    return await usage_of(caller, parts, by or ["namespace"], since, until)
