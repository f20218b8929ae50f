"""Short ways to write services, their pods and what their routers say in tests."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from drakkar.v1alpha1 import InferenceServiceSpec, InferenceServiceStatus
from drakkar.v1alpha1.inferenceservice import Member, MemberState
from drakkar.v1alpha1.trainingjob import Placement
from drakkar_operator.model import NodeView, PodView, ServiceView, ServingView
from drakkar_operator.reconcile.serving.autoscale import Memory
from drakkar_operator.reconcile.serving.observed import (
    CreateServer,
    ServiceObserved,
    ServicePlan,
    Surroundings,
    Traffic,
)
from drakkar_operator.reconcile.serving.plan import plan
from support.jobs import NODES, NOW

QUIET = Traffic(routers=1, ready=1, heard=1)


def service(status: InferenceServiceStatus | None = None, **spec: Any) -> ServiceView:
    """A service of one replica from a volume unless the spec says otherwise."""
    given = {"model": {"pvc": {"claimName": "models", "path": "gpt"}}, **spec}
    return ServiceView(
        namespace="ml",
        name="chat",
        uid="service-uid",
        generation=1,
        created=NOW - 100,
        spec=InferenceServiceSpec.model_validate(given),
        status=status or InferenceServiceStatus(),
    )


def member(name: str, revision: str = "r1", state: MemberState = "Ready") -> Member:
    """A replica that has been in its state for a while."""
    at = datetime.fromtimestamp(NOW - 60, UTC)
    return Member(name=name, revision=revision, state=state, since=at, asked=at)


class Story:
    """A service that is looked at again and again, with a scheduler and kubelets that obey."""

    def __init__(self, view: ServiceView, nodes: dict[str, NodeView] | None = None) -> None:
        self.service = view
        self.nodes = NODES if nodes is None else nodes
        self.pods: dict[str, PodView] = {}
        self.now = NOW
        self.traffic = QUIET
        self.around = Surroundings(url="http://chat.ml.svc/v1")
        self.memory = Memory()
        self.room = True
        self.last: ServicePlan | None = None
        self.most = 0
        """Most replicas that could answer at a time."""
        self.least: int | None = None
        """Fewest of them since ``watch``."""

    def look(self) -> ServicePlan:
        """Plan once and carry it out, as far as the operator does."""
        seen = ServiceObserved(
            self.service,
            tuple(self.pods.values()),
            self.nodes,
            self.traffic,
            self.around,
            self.memory,
            self.now,
        )
        found = self.last = plan(seen)
        assert plan(seen) == found
        self.memory = found.memory
        self.service = replace(self.service, status=found.status)
        for action in found.actions:
            if isinstance(action, CreateServer):
                self._create(action)
            elif hasattr(action, "uid"):
                self.pods.pop(action.name, None)
        if found.table is not None:
            self.traffic = replace(self.traffic, table=found.table)
        if self.room:
            self._place(set(found.requests))
        self.now += 1
        return found

    def settle(self, looks: int = 30) -> ServicePlan:
        """Look until nothing changes; all pods get ready meanwhile."""
        for _ in range(looks):
            before = self.service.status, dict(self.pods)
            found = self.look()
            self.count()
            for name, pod in self.pods.items():
                assert pod.serving is not None
                self.pods[name] = replace(
                    pod, running=True, phase="Running", serving=replace(pod.serving, ready=True)
                )
            if before == (self.service.status, self.pods):
                return found
        raise AssertionError(f"it never settles: {self.service.status}")

    def count(self) -> None:
        """Note how many replicas the routers can send requests to."""
        table = self.last.table if self.last else None
        up = sum(one.ready and not one.draining for one in table.endpoints) if table else 0
        self.most = max(self.most, up)
        self.least = up if self.least is None else min(self.least, up)

    def watch(self) -> None:
        """Count anew."""
        self.most, self.least = 0, None

    def change(self, **spec: Any) -> None:
        """Another spec, as kubectl apply makes it."""
        wire = self.service.spec.wire() | spec
        wire = {name: value for name, value in wire.items() if value is not None}
        self.service = replace(
            self.service,
            generation=self.service.generation + 1,
            spec=InferenceServiceSpec.model_validate(wire),
        )

    def _create(self, action: CreateServer) -> None:
        found = next(m for m in self.service.status.members if m.name == action.member)
        assert found.placement is not None, "a pod before its placement is in the status"
        pods = len(found.placement.nodes)
        name = f"chat-serve-{action.member}" + (f"-{action.rank}" if pods > 1 else "")
        assert name not in self.pods
        self.pods[name] = PodView(
            namespace="ml",
            name=name,
            uid=f"{name}-{self.now}",
            node=action.node,
            phase="Pending",
            requests={"cpu": 500, "pods": 1},
            created=self.now,
            ip=f"10.0.0.{len(self.pods) + 1}",
            job=f"chat/{action.member}",
            replica=action.rank,
            serving=ServingView("chat", "service-uid", action.member, found.revision),
        )

    def _place(self, wanted: set[str]) -> None:
        members = []
        for found in self.service.status.members:
            if found.name in wanted:
                assert self.last is not None
                request = self.last.requests[found.name]
                usable = [
                    name
                    for name, node in self.nodes.items()
                    if node.ready and name not in request.avoid
                ]
                nodes = usable[: request.replicas]
                place = Placement(level="cluster", domain="", nodes=nodes)
                found = found.model_copy(update={"placement": place})
            members.append(found)
        status = self.service.status.model_copy(update={"members": members})
        self.service = replace(self.service, status=status)
