"""Errors in one shape: RFC 9457 problem details, ``application/problem+json``."""

from http import HTTPStatus
from typing import Any

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from drakkar.kube.rest import ApiError

MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """One field that is wrong."""

    field: str = Field(description="Path of the field, such as query.limit or spec.replicas.")
    message: str


class ProblemDetails(BaseModel):
    """Body of every answer with a status of 400 or more (RFC 9457)."""

    type: str = Field(default="about:blank", description="Kind of problem; stable.")
    title: str = Field(description="The kind of problem in a few words.")
    status: int = Field(description="HTTP status.")
    detail: str = Field(description="What was wrong here, and what to do.")
    errors: list[FieldProblem] = Field(default_factory=list)


class ProblemError(Exception):
    """Answered as problem details; a page shows it as a page."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = "about:blank",
        errors: list[FieldProblem] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.details = ProblemDetails(
            type=kind,
            title=HTTPStatus(status).phrase,
            status=status,
            detail=detail,
            errors=errors or [],
        )
        self.headers = headers or {}


def not_found(what: str) -> ProblemError:
    """The object is not there, or the user may not know that it is."""
    return ProblemError(
        404, f"{what} does not exist, or you may not see it.", kind="urn:drakkar:not-found"
    )


def forbidden(verb: str, what: str) -> ProblemError:
    """Kubernetes' RBAC does not let the user do this."""
    return ProblemError(
        403,
        f"You may not {verb} {what}: ask for a role that allows it (kubectl auth can-i shows yours).",
        kind="urn:drakkar:forbidden",
    )


def from_api(error: ApiError, what: str) -> ProblemError:
    """What the API server answered, as our answer."""
    if error.status == 404:
        return not_found(what)
    if error.status == 401:
        return ProblemError(
            401,
            "The cluster does not accept your token: sign in again.",
            kind="urn:drakkar:unauthenticated",
        )
    if error.status in (400, 403, 409, 422):
        return ProblemError(
            error.status, f"{what}: {error.message}", kind=f"urn:drakkar:{error.reason.lower()}"
        )
    if error.status == 429:
        return ProblemError(
            429,
            "The API server has too much to do: try again in a moment.",
            headers={"Retry-After": "2"},
            kind="urn:drakkar:overload",
        )
    # Server-side apply answers 500 for fields that the kind has not.
    if "failed to create typed patch object" in error.message:
        return ProblemError(
            422, f"{what}: {error.message.rsplit('): ', 1)[-1]}", kind="urn:drakkar:invalid"
        )
    return ProblemError(
        503,
        f"{what}: the API server does not answer as it should ({error}).",
        kind="urn:drakkar:cluster-away",
        headers={"Retry-After": "5"},
    )


def as_problem(error: Exception) -> ProblemError:
    """Any expected exception as a problem; others become a 500 that tells nothing of the inside."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, ApiError):
        return from_api(error, "The cluster")
    if isinstance(error, RequestValidationError):
        errors = [
            FieldProblem(field=".".join(str(part) for part in item["loc"]), message=item["msg"])
            for item in error.errors()
        ]
        first = "; ".join(f"{item.field}: {item.message}" for item in errors[:3])
        return ProblemError(
            422, first or "The request is not valid.", errors=errors, kind="urn:drakkar:invalid"
        )
    if isinstance(error, HTTPException):
        return ProblemError(error.status_code, str(error.detail), headers=dict(error.headers or {}))
    return ProblemError(
        500, "The server failed to answer; its log says why.", kind="urn:drakkar:internal"
    )


def response(problem: ProblemError) -> Response:
    """The problem over HTTP."""
    return Response(
        orjson.dumps(problem.details.model_dump()),
        status_code=problem.details.status,
        media_type=MEDIA_TYPE,
        headers=problem.headers,
    )


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ProblemDetails, "content": {MEDIA_TYPE: {}}, "description": "What is wrong."},
    "5XX": {"model": ProblemDetails, "content": {MEDIA_TYPE: {}}, "description": "A part is away."},
}
"""For the OpenAPI of every route."""


def of_api(request: Request) -> bool:
    """Whether a program asked, which gets JSON, rather than a browser's page."""
    return request.url.path.startswith("/api/") or request.url.path in (
        "/healthz",
        "/readyz",
        "/metrics",
    )
