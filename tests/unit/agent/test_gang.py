"""The coordinator's state machine: one table-like test per rule."""

import math

import pytest

from drakkar.protocol import GangConfig
from drakkar_workers.agent.admission import RefusedError
from drakkar_workers.agent.clock import Clock
from drakkar_workers.agent.gang import Gang, Phase
from drakkar_workers.agent.timing import Timing
from drakkar_workers.agent.wire import Exit, Heartbeat, RankStatus
from drakkar_workers.channel import CheckpointMessage, StepMessage

KILLED = Exit(signal=9)
STOPPED = Exit(signal=9, stopped=True)
DONE = Exit(code=0)
SAVED = Exit(code=75)
BROKEN = Exit(code=1, reason="RuntimeError", message="gloo: Connection closed by peer [10.0.0.7]")
BUG = Exit(code=1, reason="ZeroDivisionError", message="division by zero")


class Table:
    """A gang and what its replicas say, at a time that the test sets."""

    def __init__(self, replicas: int = 3, **config) -> None:
        self.now = 1000.0
        self.config = GangConfig(
            job="job",
            namespace="ns",
            uid="uid",
            replicas=replicas,
            coordinator="job-0",
            **({"processes_per_replica": 1, "recipe": "pretrain", "same_error_limit": 0} | config),
        )
        self.timing = Timing()
        self.gang = Gang(self.config, "pod-uid", self.timing, self.now, Clock(offset=0))
        self.sequence = 0
        self.seen: dict[str, str] = {}

    def beat(
        self,
        replica: int,
        *exits: Exit | None,
        epoch: int | None = None,
        pod: str = "a",
        ready: bool = True,
        leaving: bool = False,
        finished: bool = False,
        step: int | None = None,
        messages: int = 0,
        started: float = 0.0,
    ):
        """``exits``: one per local rank; None for a rank that runs."""
        first = replica * self.config.processes_per_replica
        epoch = epoch if epoch is not None else (self.gang.epoch if exits else 0)
        ranks = [
            RankStatus(rank=first + i, step=step, messages=messages, exit=e)
            for i, e in enumerate(exits)
        ]
        # As an agent does, it comes again as long as it hears something new.
        for _ in range(3):
            self.sequence += 1
            self.gang.heartbeat(
                Heartbeat(
                    uid="uid",
                    replica=replica,
                    incarnation=pod,
                    started=started,
                    sequence=self.sequence,
                    pod=f"job-{replica}",
                    node=f"node-{replica}",
                    ready=ready,
                    leaving=leaving,
                    finished=finished,
                    epoch=epoch,
                    ranks=ranks,
                    seen=self.seen.get(f"{replica}-{pod}", ""),
                ),
                self.now,
            )
            command = self.gang.command(replica, pod, self.now)
            if self.seen.get(f"{replica}-{pod}") == command.key:
                break
            self.seen[f"{replica}-{pod}"] = command.key
        return command

    def all(self, *exits: Exit | None, **options) -> None:
        for replica in range(self.config.replicas):
            self.beat(replica, *exits, **options)

    def run(self) -> None:
        """Bring all ranks of the gang to run."""
        self.all()
        assert self.gang.phase is Phase.RUNNING
        self.all(None)

    def restart(self) -> None:
        """All trainers are stopped and the gang starts anew, once it may."""
        self.all(STOPPED, epoch=self.gang.epoch)
        self.later(400)
        assert self.gang.phase is Phase.RUNNING
        self.all(None)

    def later(self, seconds: float, *exits: Exit | None) -> None:
        """Let time pass in which all are heard."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1)
            for seat in self.gang._seats:
                seat.heard = self.now
            self.gang.tick(self.now)

    def step(self, number: int) -> None:
        message = StepMessage(rank=0, epoch=self.gang.epoch, step=number, total_steps=100)
        self.gang.message(message, self.now)

    def checkpoint(self, number: int) -> None:
        path = f"job/step-{number:08d}"
        self.gang.message(
            CheckpointMessage(rank=0, epoch=self.gang.epoch, step=number, path=path), self.now
        )


def test_starts_when_all_have_joined() -> None:
    table = Table()
    table.beat(0)
    table.beat(1, ready=False)
    command = table.beat(2)
    assert (command.action, command.epoch) == ("wait", 0)
    assert command.message == "waiting for replica 1; 2 of 3 have joined"
    assert table.beat(1).action == "start"
    assert table.gang.epoch == 1
    assert table.gang.report(table.now).state == "running"


def test_does_not_start_with_one_that_is_silent() -> None:
    table = Table()
    table.beat(0)
    table.now += table.timing.peer_timeout + 0.1
    table.beat(1)
    assert table.beat(2).action == "wait"
    assert "waiting for replica 0" in table.beat(2).message
    table.beat(0)
    table.gang.tick(table.now)
    assert table.gang.phase is Phase.RUNNING


def test_completes_when_all_ranks_have() -> None:
    table = Table()
    table.run()
    table.beat(0, DONE)
    table.beat(1, DONE)
    assert table.gang.phase is Phase.RUNNING
    assert table.beat(2, DONE).action == "finish"
    assert table.gang.report(table.now).state == "complete"
    assert not table.gang.over(table.now)
    table.all(DONE, finished=True)
    assert table.gang.over(table.now)


def test_coordinator_does_not_wait_for_ever_for_a_silent_peer_at_the_end() -> None:
    table = Table()
    table.run()
    table.all(DONE)
    assert not table.gang.over(table.now)
    assert table.gang.over(table.now + table.timing.farewell + 0.1)


def test_one_that_has_completed_may_be_lost() -> None:
    table = Table(2)
    table.run()
    table.beat(1, DONE)
    table.now += 100
    table.beat(0, None)
    assert table.gang.phase is Phase.RUNNING
    table.beat(0, DONE)
    assert table.gang.phase is Phase.COMPLETE


@pytest.mark.parametrize(
    ("exits", "culprit", "reason"),
    [
        pytest.param({1: KILLED}, 1, "ProcessKilled", id="killed"),
        pytest.param({1: BUG}, 1, "ProcessCrashed", id="bug"),
        pytest.param({2: BROKEN, 1: KILLED}, 1, "ProcessKilled", id="news of a follow-up first"),
        pytest.param({2: BROKEN, 1: BUG}, 1, "ProcessCrashed", id="bug after a follow-up"),
        pytest.param({2: BROKEN}, 2, "ProcessCrashed", id="a broken connection alone"),
        pytest.param({2: Exit(signal=6), 1: BUG}, 1, "ProcessCrashed", id="NCCL's watchdog aborts"),
        pytest.param(
            {0: Exit(code=1, age_seconds=0.1), 2: Exit(code=1, age_seconds=0.5)},
            2,
            "ProcessCrashed",
            id="the earlier one, by age",
        ),
        pytest.param({0: Exit(signal=9, out_of_memory=True)}, 0, "OOMKilled", id="memory"),
    ],
)
def test_restart_names_the_culprit_once(exits, culprit, reason) -> None:
    table = Table()
    table.run()
    table.step(5)
    for replica, end in exits.items():
        assert table.beat(replica, end).action == "wait"
    assert table.gang.phase is Phase.RECOVERING
    for replica in set(range(3)) - set(exits):
        table.beat(replica, STOPPED)
    (restart,) = table.gang.restarts
    assert (restart.replica, restart.node, restart.reason) == (culprit, f"node-{culprit}", reason)
    assert restart.id == "pod-uid-1"
    assert f"rank {culprit} on node node-{culprit}" in restart.message
    assert table.gang.epoch == 2
    assert table.beat(0, STOPPED, epoch=1).action == "start"


def test_first_restart_after_progress_is_immediate_then_backs_off() -> None:
    table = Table(1, in_place_restarts=5, backoff_seconds=2.0)
    table.run()
    waits = []
    for _ in range(4):
        table.beat(0, KILLED)
        began = table.now
        while table.gang.phase is not Phase.RUNNING:
            table.later(0.5)
        waits.append(table.now - began)
        table.beat(0, None)
    assert waits == [0, 2, 4, 8]
    table.step(1)
    table.beat(0, KILLED)
    assert table.gang.phase is Phase.RUNNING


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_gives_up_without_progress(allowed: int) -> None:
    table = Table(2, in_place_restarts=allowed)
    table.run()
    for _ in range(allowed):
        table.beat(1, BUG)
        table.restart()
    assert len(table.gang.restarts) == allowed
    table.beat(1, BUG)
    table.beat(0, STOPPED)
    command = table.beat(1, BUG)
    assert (command.action, command.exit_code) == ("fail", 1)
    assert table.beat(0, STOPPED).action == "wait"
    failure = table.gang.report(table.now).failure
    assert failure.retryable and failure.replica == 1
    assert "ZeroDivisionError" in failure.message
    # The pod's end is the operator's to record.
    assert len(table.gang.restarts) == allowed
    # Another pod takes the place: a new level, a new budget.
    table.beat(1, pod="b")
    assert table.gang.failure is None
    assert table.gang.phase is Phase.RUNNING
    table.all(None, pod="b")


@pytest.mark.parametrize("progress", ["step", "checkpoint", "other rank", "none", "same step"])
def test_progress_renews_the_budget(progress: str) -> None:
    table = Table(2, in_place_restarts=1)
    table.run()
    table.step(10)
    table.beat(1, BUG)
    table.restart()
    match progress:
        case "step":
            table.step(11)
        case "checkpoint":
            table.checkpoint(10)
        case "other rank":
            table.beat(1, None, step=11)
        case "same step":
            table.step(10)
    table.beat(1, BUG)
    table.beat(0, STOPPED)
    renewed = progress in ("step", "checkpoint", "other rank")
    assert (table.gang.phase is Phase.FAILED) is not renewed


def test_script_without_steps_earns_its_budget_by_running() -> None:
    table = Table(1, in_place_restarts=1, recipe=None)
    table.run()
    table.beat(0, BUG)
    table.restart()
    table.later(table.timing.stable + 1)
    table.beat(0, BUG)
    assert table.gang.phase is not Phase.FAILED


def test_configuration_error_is_final() -> None:
    table = Table()
    table.run()
    table.beat(2, BROKEN)
    end = Exit(code=78, reason="ConfigError", message="batchSize: 3 is odd")
    command = table.beat(1, end)
    assert (command.action, command.exit_code) == ("fail", 78)
    assert not command.failure.retryable
    assert command.failure.message == "batchSize: 3 is odd"
    assert table.beat(0, None).action == "fail"
    assert table.gang.restarts == []


def test_a_superseded_gang_is_not_started_again_in_place() -> None:
    table = Table()
    table.run()
    end = Exit(code=1, reason="Superseded", message="the folder belongs to another attempt")
    for _ in range(2):
        for replica in range(3):
            command = table.beat(replica, end)
    assert table.gang.phase is Phase.FAILED
    failure = table.gang.failure
    assert failure.reason == "Superseded" and failure.retryable and failure.replica == 0
    assert command.action == "wait"


def test_a_rank_that_does_not_die_fails_its_replica() -> None:
    table = Table()
    table.run()
    table.beat(0, BUG)
    table.beat(1, None)
    table.beat(2, None)
    table.beat(0, BUG)
    table.later(table.timing.stuck)
    assert table.gang.phase is Phase.RECOVERING
    table.later(1)
    failure = table.gang.failure
    assert (failure.reason, failure.replica, failure.retryable) == ("ProcessStuck", 1, True)
    assert "replica 1 on node node-1" in failure.message
    assert table.beat(1, None).action == "fail"
    # Its successor comes; another that is stuck is not waited for either.
    table.beat(1, pod="b", epoch=0)
    assert table.gang.phase is Phase.MEETING
    table.later(table.timing.stuck + 2)
    assert table.gang.failure.replica == 2
    table.beat(2, pod="b", epoch=0)
    assert table.gang.phase is Phase.RUNNING


def test_lost_pod_is_no_restart_of_processes() -> None:
    table = Table()
    table.run()
    # The peers' connections break before the silence is noticed.
    table.beat(0, BROKEN)
    table.beat(1, BROKEN)
    assert table.gang.phase is Phase.RECOVERING
    table.now += table.timing.peer_timeout + 0.1
    table.beat(0, BROKEN)
    table.beat(1, BROKEN)
    table.gang.tick(table.now)
    assert table.gang.phase is Phase.MEETING
    assert table.gang.report(table.now).state == "recovering"
    assert table.gang.restarts == []
    table.beat(2, pod="b")
    assert table.gang.phase is Phase.RUNNING
    assert table.gang.epoch == 2


def test_silence_stops_the_others_at_once() -> None:
    table = Table()
    table.run()
    table.now += table.timing.peer_timeout + 0.1
    table.beat(0, None)
    table.beat(1, None)
    table.gang.tick(table.now)
    assert table.beat(0, None).action == "wait"
    assert "replica 2 not heard" in table.beat(0, None).message


def test_replaced_pod_restarts_the_gang_and_fences_the_old() -> None:
    table = Table()
    table.run()
    assert table.beat(2, pod="b", started=5.0).action == "wait"
    command = table.beat(2, None, pod="a")
    assert (command.action, command.exit_code) == ("leave", 75)
    table.beat(0, STOPPED)
    table.beat(1, STOPPED)
    assert table.gang.epoch == 2
    assert table.gang.restarts == []


def test_older_pod_does_not_take_the_place_of_a_newer() -> None:
    table = Table()
    table.beat(0, pod="new", started=50.0)
    assert table.beat(0, pod="zombie", started=10.0).action == "leave"
    assert table.beat(0, pod="new", started=50.0).action == "wait"


def test_new_coordinator_goes_on_above_the_epochs_of_its_joiners() -> None:
    table = Table()
    table.beat(1, None, epoch=7)
    assert table.beat(2, STOPPED, epoch=6).action == "wait"
    table.beat(0)
    assert table.gang.phase is Phase.MEETING
    command = table.beat(1, STOPPED, epoch=7)
    assert (command.action, command.epoch) == ("start", 8)


def test_terminated_pod_lets_all_save() -> None:
    table = Table()
    table.run()
    assert table.beat(1, None, leaving=True).action == "start"
    assert table.beat(1, SAVED, leaving=True).action == "start"
    assert table.beat(0, None).action == "start"
    table.beat(0, SAVED)
    assert table.beat(2, SAVED).action == "wait"
    assert table.gang.restarts == []
    table.now += table.timing.peer_timeout + 1
    table.beat(0, SAVED)
    table.beat(2, SAVED)
    table.beat(1, pod="b")
    assert table.gang.epoch == 2


def test_ranks_that_do_not_leave_with_a_terminated_pod_are_stopped() -> None:
    table = Table()
    table.run()
    table.beat(1, SAVED, leaving=True)
    table.later(table.timing.drain - 1)
    assert table.gang.phase is Phase.RUNNING
    table.later(2)
    assert table.gang.phase is Phase.RECOVERING


def test_failures_while_a_pod_leaves_are_not_counted() -> None:
    table = Table()
    table.run()
    table.beat(1, Exit(signal=15, stopped=True), leaving=True)
    table.beat(0, BROKEN)
    table.beat(2, BROKEN)
    assert table.gang.phase is Phase.MEETING
    assert table.gang.restarts == []


def test_saved_and_left_without_a_terminated_pod() -> None:
    table = Table()
    table.run()
    table.step(3)
    table.all(SAVED)
    table.all(SAVED, epoch=1)
    (restart,) = table.gang.restarts
    assert (restart.reason, restart.counted) == ("ProcessLeft", False)
    assert table.gang.phase is Phase.RUNNING


def test_hang_names_the_slowest() -> None:
    table = Table(hang_timeout_seconds=60)
    table.run()
    table.beat(0, None, step=12)
    table.beat(1, None, step=11)
    table.beat(2, None, step=12)
    table.later(59)
    assert table.gang.phase is Phase.RUNNING
    table.later(2)
    assert table.beat(0, None, step=12).dump_stacks
    table.all(STOPPED)
    (restart,) = table.gang.restarts
    assert (restart.reason, restart.replica) == ("ProcessHung", 1)
    assert "no step for 6" in restart.message and "rank 1 at step 11" in restart.message


@pytest.mark.parametrize(("recipe", "hangs"), [("pretrain", True), (None, False)])
def test_silence_from_the_start(recipe: str | None, hangs: bool) -> None:
    table = Table(hang_timeout_seconds=60, recipe=recipe)
    table.run()
    table.later(100)
    assert (table.gang.phase is Phase.RECOVERING) is hangs


def test_steps_of_any_rank_are_life() -> None:
    table = Table(hang_timeout_seconds=60)
    table.run()
    for step in range(10):
        table.later(50)
        table.beat(2, None, step=step)
    assert table.gang.phase is Phase.RUNNING


def test_any_message_of_any_rank_is_life() -> None:
    table = Table(hang_timeout_seconds=60)
    table.run()
    for count in range(1, 11):
        table.later(50)
        table.beat(2, None, messages=count)
    assert table.gang.phase is Phase.RUNNING
    table.later(61)
    table.beat(2, None, messages=10)
    assert table.gang.phase is Phase.RECOVERING


def test_trainers_stopped_for_lost_contact_restart_the_gang_uncounted() -> None:
    table = Table()
    table.run()
    table.beat(1, STOPPED)
    assert table.gang.phase is Phase.RECOVERING
    table.all(STOPPED)
    assert table.gang.phase is Phase.RUNNING
    assert table.gang.restarts == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uid": "other"}, "uid 'other' is another job's; this is ns/job with uid 'uid'"),
        ({"replica": 3}, "replica 3 is unknown; this gang has replicas 0 to 2"),
        ({"replica": -1}, "replica -1 is unknown"),
        ({"ranks": [RankStatus(rank=2)]}, "replica 1 speaks for ranks [2]; it has ranks 1 to 1"),
        ({"ranks": [RankStatus(rank=1)] * 2}, "speaks for ranks [1, 1]"),
        ({"epoch": 1_000_001}, "names epoch 1000001; this gang is at 0"),
        ({"started": math.inf}, "started at inf, in the future"),
        ({"started": math.nan}, "started at nan, in the future"),
        ({"started": 1000.0 + 86_401}, "in the future"),
    ],
)
def test_refuses_what_is_not_of_the_gang(change, message) -> None:
    table = Table()
    fields = {
        "uid": "uid",
        "replica": 1,
        "incarnation": "a",
        "started": 0,
        "sequence": 1,
        "pod": "job-1",
        "node": "node-1",
    }
    with pytest.raises(RefusedError) as caught:
        table.gang.heartbeat(Heartbeat(**(fields | change)), table.now)
    assert message in str(caught.value)


def test_epochs_do_not_leave_the_wire_however_often_they_leap() -> None:
    table = Table(1)
    with pytest.raises(RefusedError):
        for _ in range(2000):
            table.beat(0, STOPPED, epoch=table.gang.epoch + 1_000_000)
    assert table.beat(0, STOPPED, epoch=table.gang.epoch).action in ("start", "wait")


def test_late_words_do_not_undo_newer_ones() -> None:
    table = Table(1)
    table.beat(0)
    table.beat(0, None)
    late = Heartbeat(
        uid="uid",
        replica=0,
        incarnation="a",
        started=0,
        sequence=1,
        pod="job-0",
        node="node-0",
        ready=True,
    )
    table.gang.heartbeat(late, table.now)
    assert table.gang.report(table.now).members[0].state == "running"


def test_report_versions() -> None:
    table = Table()
    table.run()
    version = table.gang.version
    table.step(1)
    table.gang.tick(table.now + 0.5)
    assert table.gang.version == version, "mere progress waits"
    table.gang.tick(table.now + 1.1)
    assert table.gang.version == version + 1
    table.checkpoint(1)
    assert table.gang.version == version + 2, "a checkpoint is an event"
    table.beat(1, None)
    assert table.gang.version == version + 2, "a heartbeat without news is none"


def test_messages_of_other_epochs_and_ranks_are_ignored() -> None:
    table = Table()
    table.run()
    table.gang.message(StepMessage(rank=0, epoch=9, step=50, total_steps=100), table.now)
    table.gang.message(StepMessage(rank=1, epoch=1, step=50, total_steps=100), table.now)
    assert table.gang.progress(table.now) is None


def test_checkpoints_are_kept_like_on_the_volume() -> None:
    table = Table(1, checkpoint_keep=2)
    table.run()
    for step in (10, 20, 30, 30):
        table.checkpoint(step)
    found = table.gang.report(table.now).checkpoints
    assert [record.step for record in found] == [20, 30]
