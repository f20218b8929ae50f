"""Users by their tokens, and what they may do: TokenReview and SubjectAccessReview, cached briefly."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from drakkar.constants import GROUP
from drakkar.kube.rest import Rest

TOKEN_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
LONGEST_TOKEN: Final = 16_384
_ENTRIES: Final = 50_000

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class User:
    """Somebody whom the API server knows, with the token that says so."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    token: str = field(default="", repr=False, compare=False)


class Action(NamedTuple):
    """A verb on a resource; no namespace: in all of them."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""
    group: str = GROUP
    subresource: str = ""


class Briefly(Generic[V]):
    """Answers that count for some seconds; the oldest go when there are too many."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._known: OrderedDict[object, tuple[float, V]] = OrderedDict()

    def get(self, key: object) -> V | None:
        """The answer, if it still counts."""
        found = self._known.get(key)
        if found is None:
            return None
        if found[0] <= self._clock():
            del self._known[key]
            return None
        return found[1]

    def put(self, key: object, value: V) -> None:
        """Remember an answer."""
        self._known[key] = (self._clock() + self._seconds, value)
        self._known.move_to_end(key)
        if len(self._known) > _ENTRIES:
            self._known.popitem(last=False)


class Reviews:
    """Asks the API server with the server's own rights. Raises ApiError where it can't be asked."""

    def __init__(
        self, rest: Rest, *, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rest = rest
        self._users: Briefly[User] = Briefly(seconds, clock)
        self._rights: Briefly[bool] = Briefly(seconds, clock)
        self._gate = asyncio.Semaphore(16)

    async def user_of(self, token: str) -> User | None:
        """Whose token this is; None if it is nobody's, or has expired."""
        if (
            not token
            or len(token) > LONGEST_TOKEN
            or not token.isascii()
            or not token.isprintable()
        ):
            return None
        # Only a digest is kept as the key: a dump of the cache's keys gives no token away.
        key = hashlib.sha256(token.encode()).digest()
        known = self._users.get(key)
        if known is not None:
            return known
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token},
        }
        answer = await self._rest.post(TOKEN_REVIEWS, body)
        status = answer.get("status") or {}
        if not status.get("authenticated"):
            return None
        raw = status.get("user") or {}
        user = User(
            name=str(raw.get("username", "")),
            uid=str(raw.get("uid", "")),
            groups=tuple(raw.get("groups") or ()),
            extra=tuple((k, tuple(v)) for k, v in sorted((raw.get("extra") or {}).items())),
            token=token,
        )
        self._users.put(key, user)
        return user

    async def may(self, user: User, action: Action) -> bool:
        """Whether Kubernetes lets the user do this."""
        key = (user.name, user.groups, user.extra, action)
        known = self._rights.get(key)
        if known is not None:
            return known
        attributes = {
            name: value
            for name, value in (
                ("verb", action.verb),
                ("resource", action.resource),
                ("namespace", action.namespace),
                ("name", action.name),
                ("group", action.group),
                ("subresource", action.subresource),
            )
            if value
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name,
                "uid": user.uid,
                "groups": list(user.groups),
                "extra": {name: list(values) for name, values in user.extra},
                "resourceAttributes": attributes,
            },
        }
        async with self._gate:
            answer = await self._rest.post(ACCESS_REVIEWS, body)
        allowed = bool((answer.get("status") or {}).get("allowed"))
        self._rights.put(key, allowed)
        return allowed

    async def visible(self, user: User, action: Action, namespaces: Iterable[str]) -> "Scope":
        """In which of the namespaces the user may do this."""
        if await self.may(user, action._replace(namespace="")):
            return Scope(None)
        wanted = sorted(set(namespaces))
        answers = await asyncio.gather(
            *(self.may(user, action._replace(namespace=name)) for name in wanted)
        )
        return Scope(frozenset(n for n, ok in zip(wanted, answers, strict=True) if ok))


@dataclass(frozen=True, slots=True)
class Scope:
    """Namespaces that a user sees; None: all, also those to come."""

    namespaces: frozenset[str] | None

    def __contains__(self, namespace: object) -> bool:
        return self.namespaces is None or namespace in self.namespaces
