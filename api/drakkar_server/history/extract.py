"""What history keeps of a live object, as rows of its tables. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from drakkar_server.cluster import views
from drakkar_server.cluster.views import epoch

Object = Mapping[str, Any]
Row = dict[str, Any]
HIDDEN: Final = "(hidden)"
SCALARS: Final = {
    "loss": "loss",
    "evalLoss": "eval_loss",
    "tokensPerSecond": "tokens_per_second",
    "mfu": "mfu",
    "goodput": "goodput",
}
"""Field of status.progress -> name of the metric."""


@dataclass(frozen=True, slots=True)
class JobRows:
    """All that one state of a TrainingJob says."""

    job: Row
    restarts: list[Row] = field(default_factory=list)
    checkpoints: list[Row] = field(default_factory=list)
    placement: Row | None = None
    series: list[Row] = field(default_factory=list)
    points: list[Row] = field(default_factory=list)
    holdings: list[Row] = field(default_factory=list)
    closed: float | None = None
    """When the job gave up what it held; None while it holds something."""


def _text(value: Any, most: int | None = None) -> str:
    """As text that PostgreSQL can hold, too: without NUL."""
    return str(value if value is not None else "").replace("\0", "")[:most]


def series_id(job_uid: str, name: str) -> int:
    """The id of a metric: 63 bits that every replica computes alike."""
    digest = hashlib.blake2b(f"{job_uid}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def job_rows(raw: Object, now: float) -> JobRows:
    """The rows of a job. Raises KeyError, TypeError or ValueError if it is not one."""
    view = views.job(raw)
    status: Object = raw.get("status") or {}
    uid = view.uid
    job = {
        "uid": uid,
        "namespace": view.namespace,
        "name": view.name,
        "user": view.user,
        "queue": view.queue,
        "phase": view.phase,
        "created": view.created,
        "started": view.started,
        "ended": view.ended,
        "deleted": None,
        "updated": now,
        "version": view.version,
        "replicas": view.replicas,
        "ranks": view.ranks,
        "accelerators": view.accelerators,
        "step": view.step,
        "total_steps": view.total_steps,
        "loss": finite(view.loss),
        "tokens_per_second": finite(view.tokens_per_second),
        "goodput": finite(view.goodput),
        "restarts": view.restarts,
        "reason": _text(view.reason),
        "domain": view.domain,
        "spec": without_values(raw.get("spec") or {}),
    }
    since = _admitted(status)
    named, points = _metrics(uid, status, now)
    return JobRows(
        job=job,
        restarts=[_restart(uid, item) for item in status.get("restarts") or ()],
        checkpoints=[
            {"job_uid": uid, "step": int(c["step"]), "path": str(c.get("path", "")),
             "time": epoch(c.get("time")) or now}
            for c in status.get("checkpoints") or ()
        ],
        placement=_placement(uid, status, now),
        series=named,
        points=points,
        holdings=[
            {"job_uid": uid, "since": since, "resource": demand.resource,
             "amount": _held(demand.amount, raw, view.replicas), "ended": view.ended,
             "namespace": view.namespace, "queue": view.queue, "user": view.user}
            for demand in view.demands
        ] if since is not None else [],
        closed=view.ended if view.ended is not None else _given_up(status),
    )  # fmt: skip


def finite(value: float | None) -> float | None:
    """A number that databases and charts can hold; None for the others."""
    return value if value is not None and abs(value) < 1e300 else None


def without_values(spec: Any) -> Any:
    """A spec without the values of environment variables, which may be secrets."""
    if isinstance(spec, list):
        return [without_values(item) for item in spec]
    if not isinstance(spec, Mapping):
        return spec
    return {
        key: [{**item, "value": HIDDEN} if isinstance(item, Mapping) and "value" in item else item
              for item in value]
        if key == "env" and isinstance(value, list) else without_values(value)
        for key, value in spec.items()
    }  # fmt: skip


def _condition(status: Object, kind: str) -> Object:
    return next((c for c in status.get("conditions") or () if c.get("type") == kind), {})


def _admitted(status: Object) -> float | None:
    """Since when the gang has had its place."""
    found = _condition(status, "Admitted")
    return epoch(found.get("lastTransitionTime")) if found.get("status") == "True" else None


def _given_up(status: Object) -> float | None:
    found = _condition(status, "Admitted")
    return epoch(found.get("lastTransitionTime")) if found.get("status") == "False" else None


def _held(amount: float, raw: Object, replicas: int) -> float:
    """An elastic gang holds what its size of the moment takes."""
    largest = ((raw.get("spec") or {}).get("elastic") or {}).get("max")
    return amount * replicas / int(largest) if largest else amount


def _restart(uid: str, item: Object) -> Row:
    return {
        "job_uid": uid,
        "id": str(item["id"])[:128],
        "time": epoch(item["time"]),
        "scope": _text(item.get("scope"), 16),
        "reason": _text(item.get("reason"), 64),
        "message": _text(item.get("message")),
        "replica": item.get("replica"),
        "node": item.get("node"),
        "seconds_lost": item.get("secondsLost"),
        "steps_lost": item.get("stepsLost"),
        "resumed_from": item.get("resumedFrom"),
        "counted": bool(item.get("counted", True)),
    }


def _placement(uid: str, status: Object, now: float) -> Row | None:
    found = status.get("placement")
    if not found:
        return None
    nodes = [str(node) for node in found.get("nodes") or ()]
    text = "\0".join([uid, str(_admitted(status)), *nodes])
    return {
        "job_uid": uid,
        "id": hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(),
        "time": now,
        "level": str(found.get("level", "")),
        "domain": str(found.get("domain", "")),
        "nodes": nodes,
    }


def _metrics(uid: str, status: Object, now: float) -> tuple[list[Row], list[Row]]:
    progress: Object = status.get("progress") or {}
    step = progress.get("step")
    if step is None:
        return [], []
    named, points = [], []
    for wire, name in SCALARS.items():
        value = progress.get(wire)
        if not isinstance(value, int | float) or finite(value) is None or value != value:
            continue
        number = series_id(uid, name)
        named.append({"id": number, "job_uid": uid, "name": name})
        points.append({"series_id": number, "step": int(step), "time": now, "value": float(value)})
    return named, points


def event_row(raw: Object) -> Row:
    """An Event about a TrainingJob."""
    meta: Object = raw["metadata"]
    about: Object = raw.get("involvedObject") or {}
    first = (
        epoch(raw.get("firstTimestamp"))
        or epoch(raw.get("eventTime"))
        or epoch(meta.get("creationTimestamp"))
    )
    last = (
        epoch(raw.get("lastTimestamp"))
        or epoch((raw.get("series") or {}).get("lastObservedTime"))
        or first
    )
    return {
        "id": meta["uid"],
        "namespace": about.get("namespace") or meta["namespace"],
        "name": str(about.get("name", "")),
        "job_uid": str(about.get("uid", "")),
        "type": str(raw.get("type") or "Normal")[:16],
        "reason": _text(raw.get("reason"), 128),
        "message": _text(raw.get("message")),
        "first": first or 0.0,
        "last": last or 0.0,
        "count": int(raw.get("count") or (raw.get("series") or {}).get("count") or 1),
    }
