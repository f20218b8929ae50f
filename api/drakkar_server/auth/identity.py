"""Users by their tokens, and what they may do: TokenReview and SubjectAccessReview, cached briefly."""

import asyncio
import base64
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from drakkar.constants import GROUP
from drakkar.kube.rest import ApiError, Rest

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
    """Answers that count for some seconds, and later still for who asks for ``late`` ones; the oldest
    go when there are too many."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._known: OrderedDict[object, tuple[float, V]] = OrderedDict()

    def get(self, key: object, late: float = 0.0) -> V | None:
        """The answer, if it still counts or has ceased to at most so many seconds ago."""
        found = self._known.get(key)
        return None if found is None or found[0] + late <= self._clock() else found[1]

    def put(self, key: object, value: V) -> None:
        """Remember an answer."""
        self._known[key] = (self._clock() + self._seconds, value)
        self._known.move_to_end(key)
        if len(self._known) > _ENTRIES:
            self._known.popitem(last=False)


class Reviews:
    """Asks the API server with the server's own rights. Raises ApiError where it can't be asked.

    While it is ``away`` its last answers count for ``late_seconds`` more, for reading: what users
    change is the API server's own to judge, and can't happen then.
    """

    def __init__(
        self,
        rest: Rest,
        *,
        seconds: float,
        late_seconds: float = 0.0,
        away: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rest = rest
        self._late = late_seconds
        self._away = away
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
        late = None if expired(token, time.time()) else self._users.get(key, self._late)
        if late is not None and self._away():
            return late
        try:
            answer = await self._rest.post(TOKEN_REVIEWS, body)
        except ApiError as error:
            if late is None or not error.transient:
                raise
            return late
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
        if self._away() and (late := self._last_known(user, action)) is not None:
            return late
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
        try:
            async with self._gate:
                answer = await self._rest.post(ACCESS_REVIEWS, body)
        except ApiError as error:
            late = self._last_known(user, action) if error.transient else None
            if late is None:
                raise
            return late
        allowed = bool((answer.get("status") or {}).get("allowed"))
        self._rights.put(key, allowed)
        return allowed

    def _last_known(self, user: User, action: Action) -> bool | None:
        """What the API server said last about this or, for one object, about the list it is in."""
        asked = [action]
        if action.verb == "get" and not action.subresource:
            whole = action._replace(verb="list", name="")
            asked += [whole, whole._replace(namespace="")]
        answers = [
            self._rights.get((user.name, user.groups, user.extra, each), self._late)
            for each in asked
        ]
        known = [answer for answer in answers if answer is not None]
        return any(known) if known else None

    async def visible(self, user: User, action: Action, namespaces: Iterable[str]) -> "Scope":
        """In which of the namespaces the user may do this; while the API server is away, in which it
        is known."""
        if await self.may(user, action._replace(namespace="")):
            return Scope(None)
        wanted = sorted(set(namespaces))
        answers = await asyncio.gather(
            *(self._may_if_known(user, action._replace(namespace=name)) for name in wanted)
        )
        return Scope(frozenset(n for n, ok in zip(wanted, answers, strict=True) if ok))

    async def _may_if_known(self, user: User, action: Action) -> bool:
        try:
            return await self.may(user, action)
        except ApiError as error:
            if not error.transient:
                raise
            return False


def expired(token: str, now: float) -> bool:
    """Whether a token that was good says itself that its time is over (a JWT's ``exp``). Pure."""
    parts = token.split(".")
    if len(parts) != 3:
        return False
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims.get("exp", now + 1)) <= now
    except (ValueError, TypeError, AttributeError):
        return False


@dataclass(frozen=True, slots=True)
class Scope:
    """Namespaces that a user sees; None: all, also those to come."""

    namespaces: frozenset[str] | None

    def __contains__(self, namespace: object) -> bool:
        return self.namespaces is None or namespace in self.namespaces
