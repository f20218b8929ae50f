"""Who one is, and signing in and out by a browser."""

from fastapi import APIRouter
from pydantic import BaseModel

from drakkar_server.auth.caller import Asking

router = APIRouter(prefix="/api/v1", tags=["auth"])


class Me(BaseModel):
    """The user as the cluster knows them."""

    name: str
    groups: list[str]


class Can(BaseModel):
    """One thing that a user wants to do."""

    allowed: bool


@router.get("/me")
async def me(caller: Asking) -> Me:
    """Who the token's owner is."""
    return Me(name=caller.user.name, groups=list(caller.user.groups))


@router.get("/can/{verb}/{resource}")
async def can(caller: Asking, verb: str, resource: str, namespace: str = "", name: str = "") -> Can:
    """Whether the user may do something to Drakkar's kinds: Kubernetes' own answer."""
    return Can(allowed=await caller.may(verb, resource, namespace, name))
