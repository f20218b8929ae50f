"""The page about oneself: who one is, what one may, until when, and how to get a token."""

import asyncio
import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from drakkar_server.auth.caller import Asking, Caller, cookie_name
from drakkar_server.cluster.state import SERVICES
from drakkar_server.context import Parts
from drakkar_server.jobs.router import PLURAL
from drakkar_server.web.render import page

router = APIRouter(include_in_schema=False)
_ACCOUNT: Final = re.compile(r"^system:serviceaccount:([a-z0-9-]+):([a-z0-9.-]+)$")
RIGHTS: Final[tuple[tuple[str, str, str, str, dict[str, str]], ...]] = (
    ("See jobs", "list", PLURAL, "", {}),
    ("Submit jobs", "create", PLURAL, "", {}),
    ("Suspend, resume and scale jobs", "patch", PLURAL, "", {}),
    ("Delete jobs", "delete", PLURAL, "", {}),
    ("Read logs", "get", "pods", "log", {"group": ""}),
    ("See services", "list", SERVICES, "", {}),
    ("Create services", "create", SERVICES, "", {}),
    ("Scale, promote and roll back services", "patch", SERVICES, "", {}),
    ("Speak to services", "create", "services", "proxy", {"group": ""}),
    ("See figures of services", "get", "pods", "proxy", {"group": ""}),
)
"""(in words, verb, resource, subresource, group if it is not Drakkar's) within a namespace."""
CLUSTER_RIGHTS: Final[tuple[tuple[str, str, str, dict[str, str]], ...]] = (
    ("See queues", "list", "queues", {}),
    ("See nodes", "list", "nodes", {"group": ""}),
)


def end_of(token: str) -> datetime | None:
    """When a token says that it ends; None where it does not tell. Nothing is proved by it. Pure."""
    try:
        payload = token.split(".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return datetime.fromtimestamp(claims["exp"], UTC)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, OSError, binascii.Error):
        return None


async def rights_of(caller: Caller, namespace: str) -> list[tuple[str, str, bool]]:
    """(what, where, whether the user may do it), as Kubernetes answers."""
    within = (
        caller.may(verb, resource, namespace, subresource=sub, **more)
        for _, verb, resource, sub, more in RIGHTS
    )
    everywhere = (caller.may(verb, resource, **more) for _, verb, resource, more in CLUSTER_RIGHTS)
    found = await asyncio.gather(*within, *everywhere)
    named = [(each[0], namespace) for each in RIGHTS]
    named += [(each[0], "the cluster") for each in CLUSTER_RIGHTS]
    return [(what, where, may) for (what, where), may in zip(named, found, strict=True)]


@router.get("/settings")
async def settings(
    request: Request,
    caller: Asking,
    parts: Parts,
    namespace: Annotated[str, Query(pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$")] = "",
) -> Response:
    """Who one is and what one may, how long things are kept, how to get at the API."""
    account = _ACCOUNT.match(caller.user.name)
    chosen = namespace or (account[1] if account else "default")
    cookie = request.cookies.get(cookie_name(parts))
    ends = [parts.sessions.end_of(cookie) if cookie else None, end_of(caller.user.token)]
    return page(
        request, caller, "settings.html", title="Settings", settings=parts.settings,
        namespace=chosen, rights=await rights_of(caller, chosen),
        ends=min((end for end in ends if end), default=None), token_ends=ends[1],
        account=account.groups() if account else None, base=str(request.base_url).rstrip("/"),
    )  # fmt: skip
