"""Who asks: the dependency that every route but a few public ones has.

What users change is sent to the API server with their own token, so that Kubernetes itself decides
and its audit log names them. What they read comes from the server's copies, and is checked by
SubjectAccessReview first.
"""

from collections.abc import Iterable
from typing import Annotated, Final

import structlog
from fastapi import Depends, Request

from drakkar.kube.rest import Rest
from drakkar_server.auth.identity import Action, Scope, User
from drakkar_server.auth.sessions import COOKIE, SECURE_COOKIE
from drakkar_server.context import Context, context_of
from drakkar_server.problems import ProblemError, forbidden, not_found

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER: Final = "X-CSRF-Token"
CSRF_FIELD: Final = "csrf"
audit_log = structlog.get_logger("drakkar.audit")


class Caller:
    """A user in the middle of a request."""

    def __init__(self, user: User, context: Context, csrf: str = "") -> None:
        self.user = user
        self.csrf = csrf
        """What pages of this session must send with changes; "" for programs."""
        self._context = context

    @property
    def rest(self) -> Rest:
        """The API server, asked with the user's own token."""
        return self._context.users.acting_as(self.user.token)

    async def may(
        self, verb: str, resource: str, namespace: str = "", name: str = "", **more: str
    ) -> bool:
        """Whether Kubernetes lets the user do this."""
        return await self._context.reviews.may(
            self.user, Action(verb, resource, namespace, name, **more)
        )

    async def must(
        self, verb: str, resource: str, namespace: str = "", name: str = "", **more: str
    ) -> None:
        """Raise ProblemError unless the user may do this. Who may not see an object is told the same
        as if it did not exist."""
        if await self.may(verb, resource, namespace, name, **more):
            return
        what = (
            f"{resource} {namespace}/{name}".rstrip("/")
            if namespace
            else f"{resource} {name}".strip()
        )
        raise not_found(what) if verb == "get" and name else forbidden(verb, what)

    async def sees(self, resource: str, namespaces: Iterable[str]) -> Scope:
        """In which namespaces the user may list this."""
        return await self._context.reviews.visible(self.user, Action("list", resource), namespaces)

    def audit(self, verb: str, what: str, outcome: str = "done") -> None:
        """Write down what a user changed or tried to."""
        audit_log.info("audit", user=self.user.name, verb=verb, object=what, outcome=outcome)


def bearer(request: Request) -> str | None:
    """The token of the Authorization header."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def cookie_name(context: Context) -> str:
    """Name of the session's cookie."""
    return COOKIE if context.settings.insecure_cookies else SECURE_COOKIE


async def caller_of(request: Request) -> Caller:
    """The user by bearer token or cookie. Raises ProblemError 401, 403 or 429."""
    context = context_of(request)
    csrf = ""
    token = bearer(request)
    if token is None and (cookie := request.cookies.get(cookie_name(context))):
        token = context.sessions.open(cookie)
        csrf = context.sessions.csrf(cookie)
        if request.method not in SAFE:
            await _check_origin(request, context, cookie)
    user = await context.reviews.user_of(token) if token else None
    if user is None:
        raise ProblemError(
            401,
            "Send a token of the cluster: Authorization: Bearer TOKEN (kubectl create token NAME), "
            "or sign in."
            if not token
            else "The cluster does not accept this token; it may have expired.",
            kind="urn:drakkar:unauthenticated",
            headers={"WWW-Authenticate": "Bearer"},
        )
    if wait := context.requests.wait(user.name):
        raise ProblemError(
            429,
            f"Too many requests: {context.settings.requests_per_second:g} a second are answered.",
            kind="urn:drakkar:too-many-requests",
            headers={"Retry-After": str(max(1, round(wait)))},
        )
    return Caller(user, context, csrf)


async def _check_origin(request: Request, context: Context, cookie: str) -> None:
    """A change by cookie must come from one of our own pages."""
    sent = request.headers.get(CSRF_HEADER)
    if sent is None:
        kind = request.headers.get("Content-Type", "")
        if kind.startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
            form = await request.form()
            sent = str(form.get(CSRF_FIELD, ""))
    if not sent or not context.sessions.csrf_matches(cookie, sent):
        raise ProblemError(
            403,
            "This change does not come from a page of this session: load the page again.",
            kind="urn:drakkar:csrf",
        )


Asking = Annotated[Caller, Depends(caller_of)]
