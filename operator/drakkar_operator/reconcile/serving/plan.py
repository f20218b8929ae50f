"""What an InferenceService needs next, decided from what is observed of it.

``plan`` is a pure function. The rules that carry a TrainingJob's gang hold for each replica: its
placement is in the status before its first pod exists, a pod's name is fixed by replica and rank, and
a lost pod is gone before its successor comes. Two more keep requests whole:

- A replica leaves in steps, each known before the next: its state is Draining; all routers hold a
  table that says so; nothing runs there any more; only then its pods are deleted.
- The old revision serves until the new one is ready.
"""

from drakkar.v1alpha1.inferenceservice import CanaryStatus, Member, Traffic
from drakkar_operator.reconcile.restarts import at
from drakkar_operator.reconcile.serving import autoscale, rollout, servers
from drakkar_operator.reconcile.serving.canary import Outcomes, judge
from drakkar_operator.reconcile.serving.draft import READY, RECONCILING, STALLED, Draft
from drakkar_operator.reconcile.serving.observed import (
    EnsureObjects,
    ServiceObserved,
    ServicePlan,
)
from drakkar_operator.reconcile.serving.revisions import new_revision, revision_name
from drakkar_operator.reconcile.serving.routes import route_table
from drakkar_operator.render.serving.objects import server_selector

LOOK_SECONDS = 2.0
"""How often the load, and a canary, are judged."""
MODEL_LOOK_SECONDS = 5.0


def plan(seen: ServiceObserved) -> ServicePlan:
    """The next status of a service, what follows from it, and what it asks of the scheduler."""
    service = seen.service
    if service.deleting:
        return ServicePlan(service.status, memory=seen.memory)
    draft = Draft(service, seen.now, seen.memory)
    draft.url, draft.selector = seen.around.url, server_selector(service)
    draft.actions.append(EnsureObjects())
    if service.problem is not None:
        draft.actions.clear()
        draft.stall("InvalidSpec", service.problem)
        _conclude(draft, seen)
        return draft.plan()
    if not seen.around.queue_found:
        draft.stall(
            "QueueNotFound",
            f"spec.queue: there is no Queue named {service.spec.queue!r}; "
            "create it or name another (kubectl get queues)",
        )
    error = seen.around.creation_error
    if error is not None and error.permanent:
        draft.stall("PodCreationFailed", f"the API server refuses the pods: {error.message}")
    servers.observe(draft, seen)
    _settle_revisions(draft, seen)
    if draft.stable is not None:
        _scale(draft, seen)
        _judge_canary(draft, seen)
        _change_members(draft)
        if not (error is not None and error.permanent):
            servers.complete(draft, seen)
        _share_traffic(draft)
        draft.table = route_table(service, list(draft.members.values()), seen.pods, draft.traffic)
    _conclude(draft, seen)
    return draft.plan()


def _settle_revisions(draft: Draft, seen: ServiceObserved) -> None:
    """Which revision the spec asks for, and which one serves."""
    spec, name = seen.service.spec, revision_name(seen.service.spec)
    if draft.revision(name) is None:
        model = seen.around.model
        if model.problem is not None:
            draft.stall("ModelNotFound", model.problem)
            draft.look_again_in(MODEL_LOOK_SECONDS)
            name = draft.stable or ""
        else:
            revision = new_revision(spec, at(seen.now), model.claim, model.path)
            draft.revisions.append(revision)
    if not name:
        return
    draft.stable = draft.stable or name
    draft.update = name if name != draft.stable else None
    if draft.canary is not None and draft.canary.revision != name:
        draft.canary = None
    used = {name, draft.stable, *(member.revision for member in draft.members.values())}
    draft.revisions = [one for one in draft.revisions if one.name in used]
    if draft.canary is not None and draft.canary.state == "RolledBack":
        draft.update = None
        draft.stall("RolledBack", f"revision {name} was taken back: {draft.canary.message}")


def _scale(draft: Draft, seen: ServiceObserved) -> None:
    """How many replicas there are to be."""
    spec, status = seen.service.spec, seen.service.status
    # While there was nothing to serve, as before a job's first checkpoint, none were wanted.
    before = status.desired_replicas if status.stable_revision is not None else None
    if spec.scaling is None:
        draft.desired = 1 if spec.replicas is None else spec.replicas
        reason = "spec.replicas"
    else:
        current = max(1, spec.scaling.min) if before is None else before
        size = autoscale.decide(
            spec.scaling,
            seen.traffic.load,
            draft.memory,
            current=current,
            ready=draft.ready(),
            pending=sum(member.placement is None for member in draft.active),
            now=seen.now,
        )
        draft.desired, draft.memory, reason = size.desired, size.memory, size.reason
        draft.look_again_in(LOOK_SECONDS)
    if before != draft.desired:
        draft.scaled = at(seen.now)
        if before is not None:
            draft.event("Normal", "Scaled", f"from {before} to {draft.desired} replicas: {reason}")


def _judge_canary(draft: Draft, seen: ServiceObserved) -> None:
    """Begin, watch, promote or take back."""
    settings, update = seen.service.spec.canary, draft.update
    if update is None or draft.stable is None:
        return
    if settings is None or not (draft.canary or draft.ready(draft.stable) or not draft.desired):
        # Nothing serves that it could be compared with.
        draft.canary = None
        return
    canary = draft.canary or CanaryStatus(revision=update, state="Starting")
    if canary.state in ("Promoted", "RolledBack"):
        return
    ready = draft.ready(update) > 0
    if canary.since is None and ready:
        canary = canary.model_copy(update={"state": "Running", "since": at(seen.now)})
        draft.event(
            "Normal", "CanaryStarted", f"revision {update} gets {settings.weight} % of the traffic"
        )
    own = [member for member in draft.active if member.revision == update]
    verdict = judge(
        settings,
        seen.traffic.outcomes.get(update, Outcomes()),
        seen.traffic.outcomes.get(draft.stable, Outcomes()),
        seconds=seen.now - canary.since.timestamp() if canary.since else 0.0,
        crashes=sum(member.restarts for member in own),
        ready=ready,
    )
    if verdict.action == "promote":
        canary = canary.model_copy(update={"state": "Promoted", "message": verdict.message})
        draft.event("Normal", "CanaryPromoted", f"revision {update}: {verdict.message}")
    elif verdict.action == "rollback":
        canary = canary.model_copy(update={"state": "RolledBack", "message": verdict.message})
        draft.event("Warning", "CanaryRolledBack", f"revision {update}: {verdict.message}")
        draft.stall("RolledBack", f"revision {update} was taken back: {verdict.message}")
        draft.update = None
    draft.canary = canary
    draft.look_again_in(LOOK_SECONDS)


def _on_trial(draft: Draft) -> bool:
    """Whether a canary runs beside the stable revision."""
    return draft.canary is not None and draft.canary.state in ("Starting", "Running")


def _change_members(draft: Draft) -> None:
    """Add and drain replicas, one step of a rollout or of scaling."""
    assert draft.stable is not None
    canary, spec = draft.service.spec.canary, draft.service.spec
    weight = canary.weight if canary is not None and _on_trial(draft) else None
    if draft.update is not None and weight is None and draft.ready(draft.update) >= draft.desired:
        draft.event("Normal", "RolledOut", f"revision {draft.update} has taken over")
        draft.stable, draft.update = draft.update, None
    wanted = rollout.wanted(draft.stable, draft.update, draft.desired, weight)
    found = rollout.changes(list(draft.members.values()), wanted, spec.rollout.max_surge)
    for name in found.drain:
        draft.change(draft.members[name], state="Draining")
    for name, revision in found.add:
        now = at(draft.now)
        draft.members[name] = Member(name=name, revision=revision, since=now, asked=now)


def _share_traffic(draft: Draft) -> None:
    """Percent per revision: a canary's by its weight, else by the replicas that are ready."""
    assert draft.stable is not None
    names = list(dict.fromkeys([draft.stable, *filter(None, [draft.update])]))
    settings = draft.service.spec.canary
    if draft.update is None:
        weights = {draft.stable: 100}
    elif settings is not None and _on_trial(draft):
        part = settings.weight if draft.canary and draft.canary.state == "Running" else 0
        weights = {draft.update: part, draft.stable: 100 - part}
    else:
        new, total = draft.ready(draft.update), draft.ready()
        part = round(100 * new / total) if total else 0
        part = min(max(part, int(new > 0)), 100 if new == total else 99)
        weights = {draft.update: part, draft.stable: 100 - part}
    draft.traffic = [
        Traffic(
            revision=name,
            weight=weights.get(name, 0),
            replicas=sum(member.revision == name for member in draft.active),
            ready_replicas=draft.ready(name),
        )
        for name in names
    ]


def _conclude(draft: Draft, seen: ServiceObserved) -> None:
    """The conditions."""
    ready, desired = draft.ready(), draft.desired
    up = f"{ready} of {desired} replicas are ready"
    waits = [m for m in draft.active if m.placement is None and m.pending_reason]
    why = f"; {waits[0].pending_reason}" if waits else ""
    error = seen.around.creation_error
    if error is not None:
        why += f"; pods can't be created: {error.message}"
    if draft.stable is None:
        draft.set(READY, "False", "NotStarted", (draft.stalled or ("", up))[1])
    elif seen.traffic.ready == 0:
        draft.set(READY, "False", "RouterNotReady", f"the router is not ready; {up}{why}")
    elif desired == 0:
        draft.set(READY, "True", "ScaledToZero", "no replica without load; the first request waits")
    elif ready:
        if draft.set(READY, "True", "Serving", up + why):
            draft.event("Normal", "Serving", up)
    else:
        draft.set(READY, "False", "NoReplica", up + why)
    busy = [
        f"revision {draft.update} comes" if draft.update else "",
        f"{len(draft.active)} of {desired} replicas" if len(draft.active) != desired else "",
        f"{sum(m.state != 'Ready' for m in draft.active)} are not ready"
        if any(m.state != "Ready" for m in draft.active)
        else "",
        f"{len(draft.members) - len(draft.active)} leave"
        if len(draft.members) > len(draft.active)
        else "",
    ]
    said = "; ".join(filter(None, busy))
    if said and draft.stalled is None:
        draft.set(RECONCILING, "True", "Progressing", said)
    else:
        draft.set(RECONCILING, "False", "Settled", said)
    if draft.stalled is not None:
        if draft.set(STALLED, "True", *draft.stalled):
            draft.event("Warning", *draft.stalled)
    else:
        draft.set(STALLED, "False", "Settled", "")
