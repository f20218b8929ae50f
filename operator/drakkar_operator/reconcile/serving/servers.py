"""The replicas' pods: what state they are in, what was lost, what must be created or go."""

from collections.abc import Sequence

from drakkar.v1alpha1.inferenceservice import Member, MemberState
from drakkar.v1alpha1.trainingjob import Restart
from drakkar_operator.model import PodView
from drakkar_operator.reconcile.demand import gang_request
from drakkar_operator.reconcile.failures import (
    Loss,
    deleted_pod,
    failed_pod,
    on_broken_device,
    on_lost_node,
)
from drakkar_operator.reconcile.losses import UNBOUND_SECONDS
from drakkar_operator.reconcile.restarts import AVOID_SECONDS, at, avoided_nodes
from drakkar_operator.reconcile.serving.draft import Draft
from drakkar_operator.reconcile.serving.members import gang
from drakkar_operator.reconcile.serving.observed import CreateServer, ServiceObserved

DRAIN_LOOK_SECONDS = 1.0
LEAVING_SECONDS = 10.0


def observe(draft: Draft, seen: ServiceObserved) -> None:
    """Bring the replicas' states up to date; forget those that are gone."""
    for member in list(draft.members.values()):
        pods = own_pods(seen, member)
        if not pods and member.state == "Draining":
            del draft.members[member.name]
            continue
        restarts = sum(pod.serving.restarts for pod in pods if pod.serving)
        if restarts > member.restarts:
            draft.restart_count += restarts - member.restarts
            draft.event(
                "Warning",
                "ServerRestarted",
                f"{pods[0].name}: its server ended and was started again, for the {restarts}. time",
            )
        state: MemberState = "Draining"
        if member.state != "Draining":
            state = _state(member, pods)
        draft.change(member, state=state, restarts=restarts)
    known = {(member.name, member.revision) for member in draft.members.values()}
    for pod in seen.pods:
        belongs = pod.serving is not None and (pod.serving.member, pod.serving.revision) in known
        if not belongs and not pod.deleting:
            draft.delete(pod.name, pod.uid)


def own_pods(seen: ServiceObserved, member: Member) -> list[PodView]:
    """The pods of a replica by rank."""
    pods = [
        pod
        for pod in seen.pods
        if pod.serving is not None
        and (pod.serving.member, pod.serving.revision) == (member.name, member.revision)
        and pod.replica is not None
    ]
    return sorted(pods, key=lambda pod: pod.replica or 0)


def _state(member: Member, pods: Sequence[PodView]) -> MemberState:
    if member.placement is None:
        return "Pending"
    live = [pod for pod in pods if not pod.finished and not pod.deleting]
    whole = len(live) == len(member.placement.nodes)
    if whole and all(pod.serving is not None and pod.serving.ready for pod in live):
        return "Ready"
    return "NotReady" if member.state in ("Ready", "NotReady") else "Starting"


def complete(draft: Draft, seen: ServiceObserved) -> None:
    """Per replica: clear away what is lost, create what is missing, ask for places, or let it go."""
    for member in list(draft.members.values()):
        pods = own_pods(seen, member)
        if any(pod.deleting for pod in pods):
            # Its node may be lost while it leaves, which no event of the pod would tell.
            draft.look_again_in(LEAVING_SECONDS)
        if member.state == "Draining":
            _drain(draft, seen, member, pods)
        elif not _clear_losses(draft, seen, member, pods):
            _fill(draft, seen, member, pods)


def _drain(draft: Draft, seen: ServiceObserved, member: Member, pods: Sequence[PodView]) -> None:
    """Delete its pods once no router sends it anything and what runs there has ended."""
    for pod in pods:
        if on_lost_node(pod, seen.nodes) is not None:
            draft.delete(pod.name, pod.uid, force=True)
        elif not pod.deleting and drained(seen, member, pods):
            draft.delete(pod.name, pod.uid)
        elif not pod.deleting:
            draft.look_again_in(DRAIN_LOOK_SECONDS)


def drained(seen: ServiceObserved, member: Member, pods: Sequence[PodView]) -> bool:
    """Whether a replica may be stopped: its routers know that it goes, and nothing runs there.

    What takes longer than the time to drain, or can't be asked about for so long, is left to the
    server's own drain.
    """
    seconds = seen.service.spec.rollout.drain_seconds
    leader = next((pod for pod in pods if pod.replica == 0), None)
    if leader is None or leader.ip is None or leader.finished or seen.traffic.routers == 0:
        return True
    if seen.now - member.since.timestamp() >= seconds:
        return True
    table = seen.traffic.table
    if table is None:
        return False
    listed = next((one for one in table.endpoints if one.name == leader.name), None)
    told = listed is None or listed.draining
    return told and seen.traffic.in_flight.get(leader.name, 0) == 0


def _clear_losses(
    draft: Draft, seen: ServiceObserved, member: Member, pods: Sequence[PodView]
) -> bool:
    """Put lost pods on record and delete them; True if the replica must wait for that.

    A replica of several pods restarts as a whole: its ranks can't meet a new one.
    """
    lost: list[Restart] = []
    misplaced = wounded = False
    places = member.placement.nodes if member.placement is not None else []
    known = {restart.id for restart in draft.restarts}
    restarting = len(places) > 1 and (
        len(pods) < len(places) or any(pod.uid in known for pod in pods)
    )
    for pod in pods:
        astray = _astray(member, pod)
        misplaced = misplaced or astray
        loss = None if astray else _loss(draft, seen, pod)
        wounded = wounded or loss is not None
        # The others of a replica go with the one that was lost: they are no losses of their own.
        if loss is not None and not (restarting and pod.deleting):
            lost.append(
                Restart(
                    id=pod.uid,
                    time=at(seen.now),
                    scope="pod" if len(pods) == 1 else "gang",
                    reason=loss.reason,
                    message=loss.message,
                    replica=pod.replica,
                    node=pod.node,
                    counted=False,
                )
            )
    draft.record(lost)
    if not wounded and not misplaced:
        return any(pod.deleting for pod in pods)
    for pod in pods:
        if on_lost_node(pod, seen.nodes) is not None:
            draft.delete(pod.name, pod.uid, force=True)
        elif not pod.deleting:
            draft.delete(pod.name, pod.uid)
    return True


def _astray(member: Member, pod: PodView) -> bool:
    """The pod is not where the placement wants it: the replica was displaced."""
    if member.placement is None or pod.replica is None:
        return True
    places = member.placement.nodes
    return pod.replica >= len(places) or (pod.node is not None and pod.node != places[pod.replica])


def _loss(draft: Draft, seen: ServiceObserved, pod: PodView) -> Loss | None:
    broken = on_broken_device(pod, seen.nodes)
    if pod.finished:
        return broken or failed_pod(pod)
    lost = on_lost_node(pod, seen.nodes) or broken
    if lost is None and pod.deleting:
        return deleted_pod(pod)
    if lost is None and pod.node is None:
        left = pod.created + UNBOUND_SECONDS - seen.now
        if left <= 0:
            why = f"{pod.name}: kube-scheduler does not bind it: {pod.message}"
            return Loss("Refused", why, counted=False)
        draft.look_again_in(left)
    return lost


def _fill(draft: Draft, seen: ServiceObserved, member: Member, pods: Sequence[PodView]) -> None:
    """Create the pods that are missing, or ask the scheduler for places."""
    avoid = avoided_nodes(draft.restarts, seen.now)
    if member.placement is not None:
        held = {pod.replica for pod in pods}
        missing = [
            (rank, node) for rank, node in enumerate(member.placement.nodes) if rank not in held
        ]
        if all(_usable(seen, node) and node not in avoid for _, node in missing):
            for rank, node in missing:
                draft.actions.append(CreateServer(member.name, rank, node))
            return
        for pod in pods:
            draft.delete(pod.name, pod.uid)
        if pods:
            return
        member = draft.change(member, placement=None, state="Pending", asked=at(seen.now))
    if pods or not seen.around.queue_found:
        return
    job = gang(draft.view(), member)
    if job is None:
        draft.stall("InvalidSpec", f"revision {member.revision} can't be read any more")
        return
    try:
        draft.requests[member.name] = gang_request(job, avoid=avoid)
    except ValueError as error:
        draft.stall("InvalidSpec", f"spec.resources or spec.template: {error}")
    if avoid:
        draft.look_again_in(AVOID_SECONDS)


def _usable(seen: ServiceObserved, name: str) -> bool:
    node = seen.nodes.get(name)
    return node is not None and node.ready and not node.unschedulable
