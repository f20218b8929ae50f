"""Whole gangs under random faults, in simulated time: the coordinator and the agents' decisions
against a model of processes, pods and an operator that replaces lost pods."""

import random
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from drakkar.protocol import GangConfig
from drakkar_workers.agent.clock import Clock
from drakkar_workers.agent.gang import Gang, Phase
from drakkar_workers.agent.member import Quit, Send, Situation, Start, decide
from drakkar_workers.agent.timing import Timing
from drakkar_workers.agent.wire import Command, Exit, Heartbeat, RankStatus

TICK = 0.1
STEPS, EVERY = 80, 10
TIMING = Timing(peer_timeout=2.0, grace=3.0, drain=2.0, farewell=2.0)
KILLED = Exit(signal=9)
STOPPED = Exit(signal=9, stopped=True)
BROKEN = Exit(code=1, reason="PeerLost", message="gloo: Connection closed by peer")


@dataclass
class Pod:
    """An agent with its one trainer."""

    replica: int
    name: str
    born: float
    contact: float
    command: Command | None = None
    epoch: int = 0
    exit: Exit | None = None
    step: int = 0
    breaks_at: float | None = None
    frozen_until: float = 0.0
    member_until: float = 0.0
    leaving_since: float | None = None
    sent: int | None = None
    sent_at: float = 0.0
    sequence: int = 0
    code: int | None = None

    @property
    def alive(self) -> bool:
        return self.epoch > 0 and self.exit is None


@dataclass
class World:
    replicas: int
    rng: random.Random
    now: float = 100.0
    pods: list[Pod] = field(default_factory=list)
    """The newest pod of each replica."""
    zombies: list[Pod] = field(default_factory=list)
    """Replaced pods that are still there."""
    gang: Gang | None = None
    saved: int = 0
    count: int = 0
    starts: dict[tuple[int, int], Pod] = field(default_factory=dict)
    restarts: dict[str, str] = field(default_factory=dict)
    counted: set[str] = field(default_factory=set)
    highest_epoch: int = 0
    kills: int = 0
    done: bool = False

    def __post_init__(self) -> None:
        self.config = GangConfig(
            job="j",
            namespace="n",
            uid="u",
            replicas=self.replicas,
            processes_per_replica=1,
            coordinator="c",
            recipe="pretrain",
            in_place_restarts=1000,
            backoff_seconds=0.5,
            hang_timeout_seconds=10,
        )
        for replica in range(self.replicas):
            self.pods.append(self.new_pod(replica))

    def new_pod(self, replica: int) -> Pod:
        self.count += 1
        born = self.now + self.count * 1e-6
        pod = Pod(replica, f"pod-{self.count}", born, self.now)
        if replica == 0:
            self.gang = Gang(self.config, pod.name, TIMING, self.now, Clock(offset=0))
            if not any(peer.epoch for peer in self.pods[1:]):
                self.starts.clear()  # Nobody is left who could tell the new one of earlier epochs.
        return pod

    def tick(self) -> None:
        self.now += TICK
        if self.gang is not None and not self.is_frozen(self.pods[0]):
            self.gang.tick(self.now)
        for pod in self.rng.sample(self.pods + self.zombies, len(self.pods) + len(self.zombies)):
            if pod.code is None and not self.is_frozen(pod):
                self.exchange(pod)
                self.act(pod)
        self.train()
        self.operate()
        self.check()

    def is_frozen(self, pod: Pod) -> bool:
        return self.now < pod.frozen_until

    def exchange(self, pod: Pod) -> None:
        # At the end the coordinator stays until its peers know of it.
        served = self.pods[0].code is None or self.done
        if self.gang is None or self.is_frozen(self.pods[0]) or not served:
            return
        pod.sequence += 1
        ranks = []
        if pod.epoch:
            ranks = [RankStatus(rank=pod.replica, step=pod.step or None, exit=pod.exit)]
        self.gang.heartbeat(
            Heartbeat(
                uid="u",
                replica=pod.replica,
                incarnation=pod.name,
                started=pod.born,
                sequence=pod.sequence,
                pod=pod.name,
                node="node",
                ready=self.now - pod.born > 0.5,
                leaving=pod.leaving_since is not None,
                epoch=pod.epoch,
                ranks=ranks,
                seen=pod.command.key if pod.command else "",
            ),
            self.now,
        )
        pod.command = self.gang.command(pod.replica, pod.name, self.now)
        pod.contact = self.now

    def act(self, pod: Pod) -> None:
        situation = Situation(
            ready=self.now - pod.born > 0.5,
            alive=pod.alive,
            epoch=pod.epoch,
            command=pod.command,
            contact=pod.contact,
            leaving_since=pod.leaving_since,
            saved=pod.exit is None or pod.exit.code in (0, 75),
            dumped_at=0.0,
            sent=pod.sent,
            sent_at=pod.sent_at,
        )
        match decide(situation, self.now, TIMING):
            case Start(epoch):
                previous = self.starts.get((epoch, pod.replica))
                if previous is not None and not self.is_frozen(previous):
                    running = previous.alive and previous.code is None and previous.epoch == epoch
                    assert not running, f"replica {pod.replica} runs twice in epoch {epoch}"
                self.starts[epoch, pod.replica] = pod
                pod.epoch, pod.exit, pod.step, pod.sent = epoch, None, 0, None
                pod.breaks_at = None
            case Send(number):
                pod.sent, pod.sent_at = number, self.now
                if number == 9:
                    pod.exit = STOPPED
            case Quit(code):
                pod.code = code
            case _:
                pass

    def train(self) -> None:
        running = [pod for pod in self.pods if pod.alive and not self.is_frozen(pod)]
        whole = len(running) == self.replicas and len({pod.epoch for pod in running}) == 1
        if whole:
            step = min(STEPS, max(self.saved, *(pod.step for pod in running)) + 1)
            leave = any(pod.sent == 15 for pod in running)
            if leave or step % EVERY == 0 or step >= STEPS:
                self.saved = step
            for pod in running:
                pod.step = step
                if leave:
                    pod.exit = Exit(code=75)
                elif step >= STEPS:
                    pod.exit = Exit(code=0)
            return
        for pod in self.pods + self.zombies:
            if not pod.alive or self.is_frozen(pod):
                continue
            peers = [p for p in self.pods + self.zombies if p.epoch == pod.epoch]
            gone = len(peers) < self.replicas or any(p.exit or p.code is not None for p in peers)
            started = all((pod.epoch, r) in self.starts for r in range(self.replicas))
            if gone and started:
                if pod.breaks_at is None:
                    pod.breaks_at = self.now + self.rng.choice((0.0, 0.1, 0.5))
                if self.now >= pod.breaks_at:
                    pod.exit = BROKEN

    def operate(self) -> None:
        """As the operator: replace pods that ended, unless the job has."""
        if self.gang is not None and self.gang.phase is Phase.COMPLETE:
            self.done = True
        for replica, pod in enumerate(self.pods):
            if pod.code is not None and not self.done and self.rng.random() < 0.1:
                if replica == 0:
                    self.gang = None
                self.pods[replica] = self.new_pod(replica)

    def check(self) -> None:
        self.zombies = [pod for pod in self.zombies if pod.code is None]
        if self.gang is None:
            return
        epoch = self.gang.epoch
        for restart in self.gang.restarts:
            known = self.restarts.setdefault(restart.id, restart.message)
            if restart.counted:
                self.counted.add(restart.id)
            assert known == restart.message, "one identifier for two restarts"
        self.highest_epoch = max(self.highest_epoch, epoch)
        # A replaced pod stops soon after it is seen no more as a member. It may be one still: until
        # its successor has joined, and if the coordinator has slept and found the successor silent.
        for pod in self.zombies:
            if self.is_frozen(pod) or pod.name in self.seated():
                pod.member_until = self.now
            elif pod.alive:
                since = max(pod.member_until, self.pods[0].frozen_until, self.pods[0].born)
                assert self.now - since <= TIMING.peer_timeout + 3 * TICK

    def seated(self) -> set[str]:
        """Names of the pods that the coordinator takes for the gang."""
        assert self.gang is not None
        return {member.pod for member in self.gang.report(self.now).members}

    def fault(self, kind: str, replica: int, seconds: float) -> None:
        pod = self.pods[replica]
        if pod.code is not None:
            return
        match kind:
            case "kill trainer":
                if pod.alive:
                    pod.exit = KILLED
                    self.kills += 1
            case "kill pod":
                pod.code = -9
                pod.exit = KILLED if pod.alive else pod.exit
            case "freeze":
                pod.frozen_until = self.now + seconds
            case "terminate":
                pod.leaving_since = pod.leaving_since or self.now
            case "replace":
                # The node is cut off: a new pod while the old one lives on, for a while.
                if replica:
                    pod.frozen_until = self.now + seconds
                    pod.member_until = self.now
                    self.zombies.append(pod)
                    self.pods[replica] = self.new_pod(replica)


FAULT = st.tuples(
    st.floats(0, 12),
    st.sampled_from(["kill trainer", "kill pod", "freeze", "terminate", "replace"]),
    st.integers(0, 3),
    st.floats(0.1, 6),
)


@settings(max_examples=300, deadline=None)
@example(replicas=2, faults=[(0.0, "freeze", 0, 4.0), (0.0, "replace", 1, 1.0)], seed=0)
@given(
    replicas=st.integers(1, 4), faults=st.lists(FAULT, max_size=8), seed=st.integers(0, 2**32 - 1)
)
def test_gang_completes_whatever_happens(replicas, faults, seed) -> None:
    world = World(replicas, random.Random(seed))
    plan = sorted(faults)
    start = world.now
    while not (world.done and all(pod.code is not None for pod in world.pods)):
        while plan and world.now - start >= plan[0][0]:
            _, kind, replica, seconds = plan.pop(0)
            if not world.done:
                world.fault(kind, replica % replicas, seconds)
        world.tick()
        assert world.now - start < 400, f"stuck: {world.gang and world.gang.report(world.now)}"
    assert world.saved == STEPS
    assert len(world.counted) <= world.kills, "follow-up failures don't count on their own"


@given(
    replicas=st.integers(2, 4),
    kills=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_every_killed_process_is_one_restart(replicas, kills, seed) -> None:
    world = World(replicas, random.Random(seed))
    plan = [replica % replicas for replica in kills]
    named = list(plan)
    wait = 0
    while not world.done:
        world.tick()
        running = all(pod.alive and pod.step > 0 for pod in world.pods)
        wait = wait + 1 if running else 0
        if plan and wait >= 3:
            world.fault("kill trainer", plan.pop(0), 0)
            wait = 0
        assert world.now < 500
    assert world.gang is not None
    restarts = world.gang.restarts
    assert [restart.replica for restart in restarts] == named[: len(named) - len(plan)]
    assert {restart.reason for restart in restarts} == {"ProcessKilled"}
