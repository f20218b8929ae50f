"""The coordinator's decisions: when the gang meets, starts, restarts, ends.

A state machine without I/O. Heartbeats, trainers' messages and the passing of time go in;
``command`` says what each replica has to do, ``report`` what the operator hears. All times are
seconds of a monotonic clock.

    MEETING --whole--> RUNNING --all exited 0--> COMPLETE
       ^                  | a process ended, hung, or a replica was lost, left, was replaced
       +-- RECOVERING <---+    (until no trainer runs any more and the cause is known)
               | too often without progress, or code CONFIG from anywhere
               +--> FAILED --(if retryable) a new pod joins--> MEETING

Epochs number the starts. Everything a peer says carries its epoch, so words of an earlier start
are recognized; a coordinator's successor continues above the highest epoch that a joiner names.
"""

from collections import Counter
from enum import Enum

from drakkar.exitcodes import ExitCode
from drakkar.protocol import Book, Failure, GangConfig, Recovery, Report
from drakkar.v1alpha1.trainingjob import Progress, Restart
from drakkar_workers.agent import admission, causes, endings
from drakkar_workers.agent.causes import Cause, RankExit
from drakkar_workers.agent.clock import Clock
from drakkar_workers.agent.ledger import Ledger
from drakkar_workers.agent.patience import Patience
from drakkar_workers.agent.progress import ProgressBook
from drakkar_workers.agent.repeats import Repeats
from drakkar_workers.agent.seat import Seat, essence, missing, signs_of_life
from drakkar_workers.agent.sharing import Sharing
from drakkar_workers.agent.stragglers import Watch
from drakkar_workers.agent.timing import Timing
from drakkar_workers.agent.wire import Action, Command, Heartbeat
from drakkar_workers.channel import (
    CheckpointMessage,
    Message,
    PhaseMessage,
    PhaseName,
    ResumeMessage,
    StepMessage,
)

RESTARTS_KEPT = 50
RECOVERIES_KEPT = 5
_BOOKS: dict[PhaseName, Book] = {"compiling": "compile", "saving": "checkpoint"}
"""Phases of rank 0 whose time is no step's."""
PROGRESS_PERIOD = 1.0
"""Seconds between new versions of the report for mere progress."""


class Phase(Enum):
    """Where the gang stands."""

    MEETING = "meeting"
    RUNNING = "running"
    RECOVERING = "recovering"
    COMPLETE = "complete"
    FAILED = "failed"


class Gang:
    """The state of one gang; see the module."""

    def __init__(
        self, config: GangConfig, pod_uid: str, timing: Timing, now: float, clock: Clock
    ) -> None:
        self._config = config
        self._pod_uid = pod_uid
        self._timing = timing
        self._clock = clock
        self._seats = [Seat(index, timing.peer_timeout) for index in range(config.replicas)]
        self.ledger = Ledger(clock, now)
        self._sharing = Sharing(config)
        self._patience = Patience(config.hang_timeout_seconds)
        self._repeats = Repeats()
        self._stragglers = Watch()
        self._progress = ProgressBook(clock, config.checkpoint_keep)
        self._recoveries: list[Recovery] = []
        self.phase = Phase.MEETING
        self.epoch = 0
        self.version = 1
        """Of the report; grows with every change that the operator should hear of."""
        self.restarts: list[Restart] = []
        self.restart_counts: Counter[str] = Counter()
        """In-place restarts by reason, all so far."""
        self.failure: Failure | None = None
        self.farewell_seconds = timing.farewell
        self.linger_seconds = timing.linger
        self.news: list[str] = []
        """Sentences for the log; whoever writes them clears the list."""
        self._since = now
        self._not_before = now
        self._published = now
        self._dirty = False
        self._futile = 0
        """In-place restarts since the last progress."""
        self._highest_step = 0
        self._saved_step = -1
        self._new_epoch(now)

    def _new_epoch(self, now: float) -> None:
        self._exits: dict[int, RankExit] = {}
        """First news of the ends of this epoch's processes, by rank."""
        self._life = now
        """When a trainer last showed that the training goes on."""
        self._stepped = False
        """Whether this epoch's trainers report steps."""
        self._cause: Cause | None = None
        self._drain_from: float | None = None

    def heartbeat(self, beat: Heartbeat, now: float) -> None:
        """Take a replica's state. Raises RefusedError for one that can't be of this gang."""
        admission.check(self._config, self.epoch, beat, self._clock.wall(now))
        seat = self._seats[beat.replica]
        if beat.incarnation in seat.retired:
            return
        previous = seat.beat
        if previous is not None and previous.incarnation != beat.incarnation:
            if beat.started < previous.started and seat.fresh(now):
                seat.retired.add(beat.incarnation)
                return
            seat.retired.add(previous.incarnation)
            self._replaced(beat, now)
            previous = None
        seat.heard = now
        if previous is not None and beat.sequence <= previous.sequence:
            return
        seat.beat = beat
        self._collect(previous, beat, now)
        # Transitions look at every replica, and most heartbeats say nothing new: those wait for the
        # next tick, or thousands of replicas would cost their number squared.
        if previous is None or essence(previous) != essence(beat):
            self._touch(now)
            self.tick(now)
        elif previous.seen != beat.seen:
            self.tick(now)

    def message(self, message: Message, now: float) -> None:
        """Take what rank 0 tells of the training."""
        if self.phase is not Phase.RUNNING or message.epoch != self.epoch or message.rank != 0:
            return
        self._alive(now)
        if isinstance(message, StepMessage):
            self._step_reached(message.step)
            self._account(message, now)
        if isinstance(message, ResumeMessage):
            self.ledger.resume(message.source)
        if isinstance(message, PhaseMessage) and message.phase in _BOOKS:
            self.ledger.enter(_BOOKS[message.phase], now)
        if isinstance(message, CheckpointMessage) and message.step > self._saved_step:
            self._saved_step = message.step
            self._futile = 0
        if self._progress.take(message, now):
            self._touch(now)
        else:
            self._dirty = True

    def _account(self, message: StepMessage, now: float) -> None:
        recovery = self.ledger.step(
            message.step,
            now,
            step_seconds=message.step_seconds,
            productive=message.productive_seconds,
            stall=message.stall_seconds,
        )
        if recovery is not None:
            self._recoveries = [*self._recoveries, recovery][-RECOVERIES_KEPT:]
            self._touch(now)

    def tick(self, now: float) -> None:
        """Let time pass: take every transition that is due."""
        while self._advance(now):
            pass
        if self.phase is Phase.RUNNING:
            for item in self._stragglers.look(self._seats, self.epoch, now):
                self.news.append(item.message)
                self._touch(now)
        if self._dirty and now - self._published >= PROGRESS_PERIOD:
            self._touch(now)

    def command(self, replica: int, incarnation: str, now: float) -> Command:
        """What the pod of this incarnation has to do."""
        if incarnation in self._seats[replica].retired:
            text = f"a newer pod has taken the place of replica {replica}"
            return self._command("leave", ExitCode.CHECKPOINTED, message=text)
        match self.phase:
            case Phase.RUNNING:
                orders = self._sharing.orders(replica, self._seats, self._progress.step_seconds)
                return self._command("start").model_copy(update=orders)
            case Phase.COMPLETE:
                return self._command("finish")
            case Phase.MEETING:
                return self._command("wait", message=missing(self._seats, now))
            case Phase.RECOVERING:
                cause = self._cause
                hung = cause is not None and cause.reason == causes.HUNG
                text = cause.message if cause else ""
                return self._command("wait", message=text, dump_stacks=hung)
        failure = self.failure
        assert failure is not None
        if not failure.retryable:
            return self._command("fail", ExitCode.CONFIG, failure=failure)
        if replica == failure.replica:
            return self._command("fail", ExitCode.CRASHED, failure=failure)
        return self._command("wait", message=failure.message)

    def over(self, now: float) -> bool:
        """Whether the coordinator may exit: the end has come and the peers know of it."""
        if self.failure is not None and self.failure.retryable:
            return self.failure.replica == 0
        if self.phase not in (Phase.COMPLETE, Phase.FAILED):
            return False
        told = all(seat.beat is not None and seat.beat.finished for seat in self._seats)
        return told or now - self._since > self._timing.farewell

    def longest_silence(self, now: float) -> float:
        """Seconds since the replica was heard that was not heard for longest; 0 if none was."""
        return max((now - seat.heard for seat in self._seats if seat.beat), default=0.0)

    def progress(self, now: float) -> Progress | None:
        """How far the training is, None before its first step."""
        return self._progress.snapshot(round(self.ledger.productive_share(now), 4))

    def report(self, now: float) -> Report:
        """The state for the operator."""
        again = self.phase is Phase.MEETING and self.epoch > 0
        phase = Phase.RECOVERING if again else self.phase
        return Report(
            uid=self._config.uid,
            pod_uid=self._pod_uid,
            version=self.version,
            epoch=self.epoch,
            state=phase.value,
            members=[seat.member(self.epoch, now) for seat in self._seats],
            progress=self.progress(now),
            restarts=list(self.restarts),
            checkpoints=list(self._progress.checkpoints),
            ledger=self.ledger.state(now),
            recoveries=list(self._recoveries),
            stragglers=list(self._stragglers.slow),
            failure=self.failure,
            time=self._clock.date(now),
        )

    # What heartbeats say

    def _replaced(self, beat: Heartbeat, now: float) -> None:
        self.news.append(f"replica {beat.replica} is now pod {beat.pod} on node {beat.node}")
        self._touch(now)
        if self.phase is Phase.FAILED and self.failure is not None and self.failure.retryable:
            # The pod was replaced: the next level of restart, with a new budget in place.
            self.failure, self._futile = None, 0
            self._not_before = now
            self._enter(Phase.MEETING, now)
        elif self.phase in (Phase.RUNNING, Phase.RECOVERING):
            self._recover(causes.pod(f"the pod of replica {beat.replica} was replaced"), now)

    def _collect(self, previous: Heartbeat | None, beat: Heartbeat, now: float) -> None:
        if beat.epoch > self.epoch:
            # Trainers of a former coordinator: go on above its epochs.
            if self.phase in (Phase.RUNNING, Phase.RECOVERING):
                self._recover(causes.pod("the gang had a newer coordinator"), now)
            self.epoch = beat.epoch
            self._exits.clear()
            return
        if beat.epoch < self.epoch or self.phase not in (Phase.RUNNING, Phase.RECOVERING):
            return
        if previous is None or signs_of_life(previous) != signs_of_life(beat):
            self._alive(now)
            self._dirty = True
        for status in beat.ranks:
            if status.step is not None:
                self._step_reached(status.step)
            if status.exit is not None and status.rank not in self._exits:
                time = now - status.exit.age_seconds
                end = RankExit(beat.replica, beat.node, status.rank, time, status.exit)
                self._exits[status.rank] = end

    def _alive(self, now: float) -> None:
        if self._stepped:
            self._patience.note(now - self._life)
        self._life = now

    def _step_reached(self, step: int) -> None:
        self._stepped = True
        if step > self._highest_step:
            self._highest_step = step
            self._futile = 0

    # Transitions

    def _advance(self, now: float) -> bool:
        match self.phase:
            case Phase.MEETING:
                return self._meet(now)
            case Phase.RUNNING:
                return self._watch(now)
            case Phase.RECOVERING:
                return self._settle(now)
            case _:
                return False

    def _meet(self, now: float) -> bool:
        if self._stuck([seat for seat in self._seats if seat.fresh(now) and seat.alive], now):
            return True
        if now < self._not_before or not all(seat.joined(now) for seat in self._seats):
            return False
        self.epoch += 1
        self._inherit_ledger(now)
        self._new_epoch(now)
        self._sharing.begin_epoch(self._seats)
        self.news.append(f"epoch {self.epoch}: all {self._config.replicas} replicas start")
        return self._enter(Phase.RUNNING, now)

    def _inherit_ledger(self, now: float) -> None:
        """A successor goes on with the books that its predecessor's peers have kept."""
        kept = [seat.beat.ledger for seat in self._seats if seat.beat and seat.beat.ledger]
        if kept:
            self.ledger.adopt(max(kept, key=lambda state: state.at), now)

    def _watch(self, now: float) -> bool:
        if self._misconfigured(now):
            return True
        ends = self._exits.values()
        if len(ends) == self._config.world_size and all(end.exit.code == 0 for end in ends):
            self.news.append("all ranks have completed")
            return self._enter(Phase.COMPLETE, now)
        cause = self._ending(now)
        if cause is not None:
            return self._recover(cause, now)
        if self._futile and not self._stepped and now - self._since > self._timing.stable:
            self._futile = 0
        return False

    def _ending(self, now: float) -> Cause | None:
        """Why this epoch ends, if it does."""
        cause = endings.lost(self._seats, self.epoch, now) or endings.crashed(self._exits.values())
        if cause is not None:
            return cause
        if endings.draining(self._seats, self._exits.values(), self.epoch):
            self._drain_from = now if self._drain_from is None else self._drain_from
            over = endings.drained(self._seats, self.epoch)
            if over or now - self._drain_from > self._timing.drain:
                return endings.departure(self._seats, self._exits.values())
        # A user's script need not report steps; a recipe does.
        silence = now - self._life
        watched = self._stepped or self._config.recipe is not None
        if watched and silence > self._patience.limit:
            self._patience.used()
            return endings.hung(self._seats, self.epoch, silence)
        return None

    def _settle(self, now: float) -> bool:
        """Once no trainer runs any more, the cause is known: restart or give up."""
        if self._misconfigured(now):
            return True
        busy = [seat for seat in self._seats if seat.fresh(now) and not self._stopped(seat)]
        if busy:
            return self._stuck(busy, now)
        assert self._cause is not None
        gone = any(seat.leaving or not seat.fresh(now) for seat in self._seats)
        if gone or self._cause.reason == causes.POD:
            # What processes do when a pod goes away is no fault of theirs; the operator sees the pod.
            self._not_before = now
            return self._enter(Phase.MEETING, now)
        # The first news need not be of the first failure.
        first = causes.culprit(self._exits.values())
        if first is not None and first.exit.reason == causes.SUPERSEDED:
            # Started again in place it would take the folder back from the gang that follows it.
            text = causes.crash(first).message
            return self._fail(causes.SUPERSEDED, text, first.replica, retryable=True, now=now)
        if first is not None and self._is_the_codes(first):
            again = (
                f"{causes.crash(first).message} ({self._repeats.count} times in a row after step "
            )
            text = f"{again[:900]}{self._highest_step}): the code fails in the same way each time"
            reason = first.exit.reason or "ProcessCrashed"
            return self._fail(reason, text, first.replica, retryable=False, now=now)
        cause = causes.crash(first) if first else endings.with_stacks(self._cause, self._seats)
        return self._restart_or_fail(cause, now)

    def _is_the_codes(self, end: RankExit) -> bool:
        """Whether no restart will mend this failure, on whatever node."""
        limit = self._config.same_error_limit
        return 0 < limit <= self._repeats.note(end, self._highest_step)

    def _stuck(self, busy: list[Seat], now: float) -> bool:
        """Fail for the first of these that has not stopped its trainers in time.

        SIGKILL does not end a process that waits for a lost disk: another pod, elsewhere, may run.
        """
        for seat in self._seats:
            if seat.busy_since is not None and seat not in busy:
                seat.busy_since = None
        for seat in busy:
            assert seat.beat is not None
            if seat.busy_since is None:
                seat.busy_since = now
            waited = now - seat.busy_since
            if waited > self._timing.stuck:
                text = (
                    f"replica {seat.replica} on node {seat.beat.node} has not stopped its trainers "
                    f"for {waited:.0f} s; the kernel may hold them"
                )
                return self._fail(causes.STUCK, text, seat.replica, retryable=True, now=now)
        return False

    def _stopped(self, seat: Seat) -> bool:
        """Whether it has heard that this epoch is over and runs nothing.

        Without the first, a pod that died right after it had started its trainers would look like
        one that had not started any, and its peers' broken connections like faults of their own.
        """
        assert seat.beat is not None
        return not seat.alive and seat.beat.seen == self._command("wait").key

    def _restart_or_fail(self, cause: Cause, now: float) -> bool:
        allowed = self._config.in_place_restarts
        if self._futile >= allowed:
            tried = f"; restarted in place {self._futile} times without progress"
            text = cause.message[:900] + (tried if allowed else "")
            # Without a culprit the coordinator's pod is as good as any.
            return self._fail(cause.reason, text, cause.replica or 0, retryable=True, now=now)
        delay = 0.0
        if self._futile:
            delay = self._config.backoff_seconds * 2.0 ** min(30, self._futile - 1)
        delay = min(delay, self._timing.backoff_limit)
        self._futile += 1
        self._not_before = now + delay
        restart = causes.restart(cause, f"{self._pod_uid}-{self.epoch}", self._clock.date(now))
        self.restarts = [*self.restarts, restart][-RESTARTS_KEPT:]
        self.restart_counts[cause.reason] += 1
        after = f" in {delay:g} s" if delay else ""
        self.news.append(f"{cause.message}; restarting in place{after}")
        return self._enter(Phase.MEETING, now)

    def _misconfigured(self, now: float) -> bool:
        end = causes.misconfigured(self._exits.values())
        if end is None:
            return False
        text = end.exit.message or f"rank {end.rank} exited with code {int(ExitCode.CONFIG)}"
        reason = end.exit.reason or "ConfigError"
        return self._fail(reason, text, end.replica, retryable=False, now=now)

    def _recover(self, cause: Cause, now: float) -> bool:
        self._cause = cause
        self.ledger.interrupt(now)
        self.news.append(f"epoch {self.epoch} ends: {cause.message}")
        return self._enter(Phase.RECOVERING, now)

    def _fail(
        self, reason: str, message: str, replica: int | None, *, retryable: bool, now: float
    ) -> bool:
        self.failure = Failure(
            reason=reason[:64], message=message[:1024], replica=replica, retryable=retryable
        )
        self.news.append(f"the gang failed: {reason}: {message}")
        return self._enter(Phase.FAILED, now)

    def _enter(self, phase: Phase, now: float) -> bool:
        self.phase, self._since = phase, now
        for seat in self._seats:
            seat.busy_since = None
        self._touch(now)
        return True

    def _touch(self, now: float) -> None:
        self.version += 1
        self._published, self._dirty = now, False

    def _command(
        self,
        action: Action,
        exit_code: int = 0,
        *,
        failure: Failure | None = None,
        message: str = "",
        dump_stacks: bool = False,
    ) -> Command:
        return Command(
            action=action,
            epoch=self.epoch,
            exit_code=exit_code,
            failure=failure,
            message=message,
            dump_stacks=dump_stacks,
        )
