"""What can go wrong between a user and the API server, each as one or two sentences."""

from collections.abc import Mapping
from typing import Any

from drakkar.planning import REFUSAL


class ClientError(Exception):
    """The API server refused, for a reason that the message gives."""

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
        """HTTP status, or 0 where there was no answer."""


class ConfigurationError(ClientError):
    """No usable kubeconfig."""


class UnreachableError(ClientError):
    """No answer from the API server."""


class NotFoundError(ClientError):
    """The object does not exist."""


class NotInstalledError(ClientError):
    """The cluster does not know the kind."""


class ForbiddenError(ClientError):
    """The user may not do this."""


class InvalidError(ClientError):
    """The object breaks a rule of its kind."""


def from_status(code: int, status: Mapping[str, Any] | None, target: str) -> ClientError:
    """The error for an answer of the API server (meta/v1 Status).

    target: what the request was about, such as "TrainingJob default/train-gpt".
    """
    message = str((status or {}).get("message") or f"HTTP status {code}").strip()
    details = (status or {}).get("details") or {}
    if code == 401:
        return ForbiddenError(
            "The cluster does not accept your credentials: renew the ones in your kubeconfig.",
            code=code,
        )
    if code == 403:
        return ForbiddenError(f"Not allowed: {message}.", code=code)
    if code == 404 and details.get("name"):
        return NotFoundError(f"{target} does not exist.", code=code)
    if code == 404:
        return NotInstalledError(
            f"The cluster does not know the kind of {target}. Is Drakkar installed there? "
            "Install it with: helm install drakkar charts/drakkar",
            code=code,
        )
    if code in (400, 422):
        return InvalidError(f"{target} is refused: {_causes(details) or message}", code=code)
    if code == 409:
        return ClientError(f"{target} can't be changed now: {message}", code=code)
    if "failed to create typed patch object" in message:
        # Server-side apply answers 500 for fields that the kind has not, or of a wrong type.
        return InvalidError(f"{target} is refused: {message.rsplit('): ', 1)[-1]}", code=code)
    return ClientError(f"{target}: the API server answered {code}: {message}", code=code)


def from_service(code: int, status: Mapping[str, Any] | None, target: str) -> ClientError:
    """The error for an answer by way of the API server's proxy to the operator's Service.

    target: the Service, such as "service drakkar-system/drakkar-operator".
    """
    message = str((status or {}).get("message") or f"HTTP status {code}").strip()
    if (status or {}).get("reason") == REFUSAL:
        return ClientError(f"The operator refuses: {message}.", code=code)
    if code == 404:
        return NotFoundError(
            f"There is no {target}: is Drakkar installed there? "
            "Where it has another name, say so: --operator NAMESPACE/SERVICE",
            code=code,
        )
    if code in (502, 503, 504):
        return UnreachableError(
            f"The API server gets no answer from {target}: {message}. "
            "Is an operator ready, and may the API server reach it (docs/how-to/install.md)?",
            code=code,
        )
    return from_status(code, status, target)


def from_model(code: int, status: Mapping[str, Any] | None, target: str) -> ClientError:
    """The error for an answer of a served model by way of the API server's proxy.

    target: the service, such as "InferenceService default/gpt".
    """
    said = (status or {}).get("error")
    if isinstance(said, Mapping):
        return ClientError(f"{target} refuses ({code}): {said.get('message')}", code=code)
    return from_status(code, status, target)


def _causes(details: Mapping[str, Any]) -> str:
    """The causes of a refusal, one a line if there are several."""
    lines = []
    for cause in details.get("causes") or ():
        text = str(cause.get("message", ""))
        if "some validation rules were not checked" in text:
            continue
        field = cause.get("field")
        lines.append(f"{field}: {text}" if field and field != "<nil>" else _after_value(text))
    return lines[0] if len(lines) == 1 else "".join(f"\n  - {line}" for line in lines)


def _after_value(text: str) -> str:
    """A CEL message on the whole object, without the object's text in front."""
    return text.removeprefix("Invalid value: ")
