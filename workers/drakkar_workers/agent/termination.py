"""The agent's last words, which the kubelet copies into the pod's status.

See https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/.
"""

import json
from pathlib import Path
from typing import Any

from drakkar.protocol import Failure, Report

LIMIT_BYTES = 4096
"""The kubelet keeps no more of a container's termination message."""
PATH_ENV = "DRAKKAR_TERMINATION_LOG"
DEFAULT_PATH = "/dev/termination-log"


def report_message(report: Report, failure: Failure | None = None) -> str:
    """The report as JSON below the limit: the least important parts are left out until it fits.

    Beside it, under the names that ``failure_message`` gives them, stand the parts of ``failure``:
    why this pod ends, where that is not how the gang stands.
    """
    said = failure.model_copy(update={"message": failure.message[:500]}).wire() if failure else {}
    newest = report.checkpoints[-1:]
    progress = report.progress
    plain = progress.model_copy(update={"sample": None}) if progress else None
    last = report.restarts[-1:]
    brief = [r.model_copy(update={"message": r.message[:200]}) for r in last]
    least: dict[str, Any] = {
        "members": [],
        "recoveries": report.recoveries[-1:],
        "stragglers": [],
    }
    updates: tuple[dict[str, Any], ...] = (
        {},
        {"members": []},
        {"members": [], "checkpoints": newest},
        {"members": [], "checkpoints": newest, "restarts": report.restarts[-5:]},
        {**least, "checkpoints": newest, "restarts": last},
        {**least, "checkpoints": newest, "restarts": brief, "progress": plain},
        {**least, "checkpoints": [], "restarts": [], "progress": plain},
    )
    for update in updates:
        text = _dump({**report.model_copy(update=update).wire(), **said})
        if len(text.encode()) < LIMIT_BYTES:
            return text
    return _dump({"uid": report.uid, "podUid": report.pod_uid, "state": report.state, **said})


def failure_message(failure: Failure) -> str:
    """The failure as JSON below the limit."""
    text = _dump(failure.wire())
    if len(text.encode()) < LIMIT_BYTES:
        return text
    return _dump(failure.model_copy(update={"message": failure.message[:500]}).wire())


def write(path: Path, text: str) -> None:
    """Leave the message. Outside of a container there may be no such file: that is no error."""
    try:
        path.write_text(text)
    except OSError:
        return


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
