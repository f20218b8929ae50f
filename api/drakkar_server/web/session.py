"""Signing in with a token of the cluster, and out."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from drakkar_server.auth.caller import Asking, audit_log, cookie_name
from drakkar_server.auth.sessions import LIFETIME_SECONDS
from drakkar_server.context import Parts
from drakkar_server.problems import ProblemError
from drakkar_server.web.render import page

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def login_page(request: Request) -> Response:
    """Where one signs in."""
    return page(request, None, "login.html", problem="")


@router.post("/login")
async def login(request: Request, parts: Parts, token: Annotated[str, Form()] = "") -> Response:
    """Take a token into a sealed cookie."""
    # There is no session yet that a token against forgery could belong to.
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise ProblemError(403, "Sign in from Drakkar's own page.", kind="urn:drakkar:csrf")
    where = request.client.host if request.client else ""
    if parts.logins.wait(where):
        raise ProblemError(
            429, "Too many attempts: wait a few seconds.", headers={"Retry-After": "5"}
        )
    user = await parts.reviews.user_of(token.strip())
    if user is None:
        audit_log.info("audit", user="", verb="login", object=where, outcome="refused")
        problem = "The cluster does not accept this token; it may have expired."
        return page(request, None, "login.html", 401, problem=problem)
    audit_log.info("audit", user=user.name, verb="login", object=where, outcome="done")
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        cookie_name(parts),
        parts.sessions.seal(user.token),
        max_age=LIFETIME_SECONDS,
        httponly=True,
        secure=not parts.settings.insecure_cookies,
        samesite="lax",
        path="/",
    )
    return answer


@router.post("/logout")
async def logout(caller: Asking, parts: Parts) -> Response:
    """End the session of this browser."""
    caller.audit("logout", "session")
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(
        cookie_name(parts), path="/", secure=not parts.settings.insecure_cookies, httponly=True
    )
    return answer
