"""Refusals in the shape that OpenAI's clients expect."""

from typing import Any

import orjson
from aiohttp import web


class ApiError(Exception):
    """An answer that is an error; ``param`` names the field that it is about."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """What the client parses."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> web.Response:
        """The whole answer."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else None
        body = orjson.dumps(self.body())
        return web.Response(
            body=body, status=self.status, content_type="application/json", headers=headers
        )


def not_found(message: str, code: str = "model_not_found") -> ApiError:
    """What was asked for does not exist."""
    return ApiError(message, status=404, kind="not_found_error", code=code)


def unauthorized(message: str) -> ApiError:
    """No key, or an unknown one."""
    return ApiError(message, status=401, kind="authentication_error", code="invalid_api_key")


def too_many(message: str, code: str, retry_after: int) -> ApiError:
    """A limit of the key, or a full queue."""
    return ApiError(
        message, status=429, kind="rate_limit_error", code=code, retry_after=max(1, retry_after)
    )


def unavailable(message: str) -> ApiError:
    """The engine is starting, has died, or is being drained."""
    return ApiError(
        message, status=503, kind="service_unavailable", code="unavailable", retry_after=1
    )


def timed_out(seconds: float) -> ApiError:
    """The request took longer than it may."""
    return ApiError(
        f"no answer within {seconds:g} s", status=504, kind="timeout_error", code="timeout"
    )


def broken(message: str) -> ApiError:
    """The engine failed while it served this."""
    return ApiError(message, status=500, kind="server_error", code="engine_error")
