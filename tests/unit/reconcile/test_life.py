"""A job's whole life under random faults, with an operator that dies between any two actions."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar.protocol import Member, Report
from drakkar.v1alpha1.trainingjob import Placement, Progress
from drakkar_operator.model import JobView, PodView
from drakkar_operator.reconcile.actions import CreatePod, DeletePod, Plan
from drakkar_operator.reconcile.observed import Context
from drakkar_operator.reconcile.trainingjob import placed, plan, unplaced
from support.jobs import NOW, after, job, node, pod

NODES = ("a", "b", "c", "d")
STEPS = 5
FAULTS = (
    "none",
    "kill pod",
    "delete pod",
    "lose node",
    "return node",
    "refuse",
    "suspend",
    "fail at the end",
)


class World:
    """An API server, kubelets and agents in miniature; the status and the pods are what lasts."""

    def __init__(self) -> None:
        self.job: JobView = job(faultTolerance={"maxRestarts": 1000, "backoffSeconds": 0})
        self.nodes = {name: node(name) for name in NODES}
        self.pods: dict[str, PodView] = {}
        self.now = NOW
        self.step = 0
        self.incarnations = 0
        self.refusing: set[str] = set()
        self.fails_at_the_end = False

    def report(self) -> Report | None:
        """What the coordinator would say, if it lives."""
        first = self.pods.get("gpt-0")
        if first is None or not first.running:
            return None
        whole = sum(p.running and not p.deleting for p in self.pods.values()) == 3
        return Report(
            uid="job-uid",
            pod_uid=first.uid,
            version=1,
            epoch=1,
            state="running" if whole else "recovering",
            members=[
                Member(
                    replica=p.replica or 0,
                    pod=p.name,
                    node=p.node or "",
                    state="running" if self.heard(p) else "missing",
                    heartbeat_age_seconds=0.1 if self.heard(p) else 60.0,
                )
                for p in self.pods.values()
            ],
            progress=Progress(step=self.step, total_steps=STEPS),
            time=datetime.fromtimestamp(self.now, UTC),
        )

    def heard(self, view: PodView) -> bool:
        """Its agent's heartbeats arrive: a lost node takes its containers along."""
        return view.running and view.node is not None and self.nodes[view.node].ready

    def reconcile(self, survives: int) -> None:
        """One look at the job; the operator dies after ``survives`` writes."""
        decided = self.plan()
        if decided.request is not None:
            decided = self.schedule(decided)
        if survives == 0:
            return
        self.job = after(self.job, decided)
        for action in decided.actions[: survives - 1]:
            if isinstance(action, CreatePod):
                self.create(action)
            elif isinstance(action, DeletePod):
                self.delete(action)

    def plan(self) -> Plan:
        """The plan for what is there now."""
        context = Context(report_age=0.1)
        return plan(
            self.job, list(self.pods.values()), self.nodes, self.report(), self.now, context
        )

    def schedule(self, decided: Plan) -> Plan:
        """One rank per node, in order of name."""
        request = decided.request
        assert request is not None
        view = after(self.job, decided)
        taken = {*request.fixed.values(), *request.avoid}
        taken |= {p.node for p in self.pods.values() if p.node}
        free = [n for n in NODES if self.nodes[n].ready and n not in taken]
        if len(free) < len(request.missing):
            return unplaced(view, "no room", self.now)
        places = {**request.fixed, **dict(zip(request.missing, free, strict=False))}
        nodes = [places[r] for r in range(3)]
        return placed(view, Placement(level="cluster", domain="", nodes=nodes), self.now)

    def create(self, action: CreatePod) -> None:
        """As the API server: a taken name is refused; the pod must be where the status says."""
        placement = self.job.status.placement
        assert placement is not None, "a pod without a placement on record"
        assert placement.nodes[action.replica] == action.node
        name = f"gpt-{action.replica}"
        if name in self.pods:
            return
        self.incarnations += 1
        uid = f"uid-{action.replica}-{self.incarnations}"
        new = pod(action.replica, uid=uid, node=action.node, phase="Pending", running=False)
        if action.node in self.refusing:
            self.refusing.discard(action.node)
            new = replace(new, phase="Failed", reason="OutOfcpu")
        self.pods[name] = new

    def delete(self, action: DeletePod) -> None:
        """As the API server: by UID; force removes the object at once."""
        found = self.pods.get(action.name)
        if found is None or found.uid != action.uid:
            return
        if action.grace_seconds == 0 or found.finished:
            del self.pods[action.name]
        else:
            self.pods[action.name] = replace(found, deleting=True)

    def kubelets(self) -> None:
        """Start what waits, end what leaves, on nodes that live."""
        for name, view in list(self.pods.items()):
            if view.node is None or not self.nodes[view.node].ready:
                continue
            if view.deleting:
                del self.pods[name]
            elif view.phase == "Pending":
                self.pods[name] = replace(view, phase="Running", running=True)

    def train(self) -> None:
        """A whole gang makes a step; after the last its pods succeed."""
        gang = list(self.pods.values())
        if len(gang) == 3 and all(self.heard(p) and not p.deleting for p in gang):
            self.step += 1
            if self.step >= STEPS:
                for view in gang:
                    self.pods[view.name] = replace(view, phase="Succeeded", running=False)
                if self.fails_at_the_end:
                    self.fails_at_the_end = False
                    self.step -= 1
                    last = self.pods["gpt-0"]
                    self.pods["gpt-0"] = replace(last, phase="Failed", exit_code=137)

    def hurt(self, fault: str, choice: int) -> None:
        """Inject a fault into one pod or node."""
        victims = sorted(self.pods)
        name = NODES[choice % len(NODES)]
        if fault == "kill pod" and victims:
            victim = self.pods[victims[choice % len(victims)]]
            if victim.running:
                self.pods[victim.name] = replace(
                    victim, phase="Failed", running=False, exit_code=137
                )
        elif fault == "delete pod" and victims:
            victim = self.pods[victims[choice % len(victims)]]
            self.pods[victim.name] = replace(victim, deleting=True)
        elif fault == "lose node":
            self.nodes[name] = replace(self.nodes[name], ready=False)
        elif fault == "return node":
            self.nodes[name] = replace(self.nodes[name], ready=True)
        elif fault == "refuse":
            self.refusing.add(name)
        elif fault == "fail at the end":
            self.fails_at_the_end = True
        elif fault == "suspend":
            self.suspend(not self.job.spec.suspend)

    def suspend(self, wish: bool) -> None:
        """Set spec.suspend."""
        spec = self.job.spec.model_copy(update={"suspend": wish})
        self.job = replace(self.job, spec=spec)

    def heal(self) -> None:
        """Nothing else breaks, and as many nodes return as the gang needs; the others stay lost."""
        for name in NODES:
            if sum(view.ready for view in self.nodes.values()) < 3:
                self.nodes[name] = node(name)
        self.refusing.clear()
        self.suspend(False)


EVENTS = st.tuples(st.sampled_from(FAULTS), st.integers(0, 11), st.integers(0, 6))


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=40))
def test_a_job_survives_any_faults_and_any_deaths_of_its_operator(
    story: list[tuple[str, int, int]],
) -> None:
    world = World()
    for fault, choice, survives in story:
        world.now += 1
        world.hurt(fault, choice)
        world.reconcile(survives)
        world.kubelets()
        world.train()
    world.heal()
    for _ in range(100):
        world.now += 1
        world.reconcile(survives=100)
        world.kubelets()
        world.train()
        if world.job.status.phase == "Complete":
            break
    assert world.job.status.phase == "Complete", world.job.status.model_dump_json(indent=1)
    ids = [restart.id for restart in world.job.status.restarts]
    assert len(ids) == len(set(ids))
    settled = world.plan()
    assert settled.status == world.job.status
    assert not settled.actions


@given(st.lists(EVENTS, max_size=30))
@settings(max_examples=100, deadline=None)
def test_a_settled_job_is_left_in_peace(story: list[tuple[str, int, int]]) -> None:
    """Looking twice without anything happening in between changes nothing the second time."""
    world = World()
    for fault, choice, survives in story:
        world.now += 1
        world.hurt(fault, choice)
        world.reconcile(survives)
        world.kubelets()
    for _ in range(8):
        world.reconcile(survives=100)
    view = world.job
    world.reconcile(survives=100)
    assert world.job.status == view.status
