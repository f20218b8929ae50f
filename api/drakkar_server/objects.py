"""Objects of Drakkar's kinds, read and changed with the user's own token; every change is audited.

``what`` names the object in messages and in the audit log, such as "TrainingJob ml/gpt". All raise
ProblemError.
"""

from typing import Any, Final

from drakkar.kube.rest import ApiError, Object
from drakkar_server.auth.caller import Caller
from drakkar_server.problems import from_api, not_found

_WRITE: Final = {"fieldManager": "drakkar-server", "fieldValidation": "Strict"}
_DELETE: Final = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}


async def read(caller: Caller, path: str, what: str) -> dict[str, Any]:
    """The object; one that may not be read is told like one that is not there."""
    try:
        found = await caller.rest.get(path)
    except ApiError as error:
        raise (not_found(what) if error.status == 403 else from_api(error, what)) from None
    found["metadata"].pop("managedFields", None)
    return found


async def create(
    caller: Caller, path: str, body: Object, what: str, *, dry_run: bool = False
) -> Object:
    """Create it in the collection at ``path``, or only have it judged; as it is stored."""
    try:
        created = await caller.rest.post(
            path, body, _WRITE | ({"dryRun": "All"} if dry_run else {})
        )
    except ApiError as error:
        if not dry_run:
            caller.audit("create", what, f"refused ({error.status})")
        raise from_api(error, what) from None
    if not dry_run:
        caller.audit("create", what)
    created["metadata"].pop("managedFields", None)
    return created


async def patch(caller: Caller, path: str, change: Object, what: str, verb: str) -> None:
    """Change fields by a merge patch; ``verb`` is what the user does by it."""
    try:
        await caller.rest.patch(path, change, params=_WRITE)
    except ApiError as error:
        caller.audit(verb, what, f"refused ({error.status})")
        raise from_api(error, what) from None
    caller.audit(verb, what)


async def delete(caller: Caller, path: str, what: str) -> None:
    """Delete it; what it owns goes after it."""
    try:
        await caller.rest.delete(path, _DELETE)
    except ApiError as error:
        caller.audit("delete", what, f"refused ({error.status})")
        raise from_api(error, what) from None
    caller.audit("delete", what)
