"""The agent of one pod: keeps in contact with its coordinator and does what that says.

The loop is level-triggered. ``member.decide`` looks at the whole situation whenever something has
changed, and a quarter of a second after that; everything else here only carries facts to it and
does what it decides.
"""

import asyncio
import contextlib
import logging
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from drakkar.exitcodes import ExitCode
from drakkar.protocol import Failure
from drakkar_workers.agent import member, metrics, termination
from drakkar_workers.agent.backup import Backup
from drakkar_workers.agent.client import Client, UnreachableError
from drakkar_workers.agent.clock import Clock
from drakkar_workers.agent.coordinator import Coordinator
from drakkar_workers.agent.courier import Courier
from drakkar_workers.agent.environment import trainer_environments
from drakkar_workers.agent.gang import Gang
from drakkar_workers.agent.inbox import Inbox
from drakkar_workers.agent.member import Situation
from drakkar_workers.agent.processes import Processes
from drakkar_workers.agent.resources import cpu_limit, omp_threads
from drakkar_workers.agent.server import Server
from drakkar_workers.agent.settings import Settings
from drakkar_workers.agent.stacks import Stacks
from drakkar_workers.agent.vault import Vault
from drakkar_workers.agent.wire import Command, Fetch, Heartbeat
from drakkar_workers.channel import EvalMessage, Message, StepMessage

RECHECK_SECONDS = 0.25
RETRY_SECONDS = 0.3
COMPLAIN_SECONDS = 10.0
FETCH_SECONDS = 300.0
"""For checkpoints to come from peers' memory; storage is the other way."""
PARTING_SECONDS = 2.0
"""For a peer to tell the coordinator that it has seen the end."""
LOOPBACK = "127.0.0.1"

log = logging.getLogger(__name__)


class Agent:
    """Runs one pod's trainers until the gang's end or the pod's."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = dict(environ)
        self._environ.setdefault("PYTHONUNBUFFERED", "1")
        threads = omp_threads(cpu_limit(), settings.gang.processes_per_replica)
        # The fork server must have it before it imports torch.
        self._environ.setdefault("OMP_NUM_THREADS", str(threads))
        self._started = time.time()
        self._incarnation = f"{settings.pod.pod_uid}:{self._started:.6f}"
        self._sequence = 0
        self._finished = False
        self._leaving_since: float | None = None
        self._to_save: set[int] = set()
        """Ranks that ran here when SIGTERM came: only they have a state to save."""
        self._sent: int | None = None
        self._sent_at = 0.0
        self._dumped_at: float | None = None
        self._command: Command | None = None
        self._contact = time.monotonic()
        self._complained = float("-inf")
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        """Something that the coordinator should hear at once."""
        self._steps: dict[int, StepMessage] = {}
        self._eval_loss: float | None = None
        self._starts = 0
        self._ends: Counter[str] = Counter()
        self._was_alive = False
        self._inbox = Inbox(self._take)
        gang = settings.gang
        first = settings.pod.replica_index * gang.processes_per_replica
        ranks = range(first, first + gang.processes_per_replica)
        self._vault = Vault(ranks)
        self._stacks = Stacks(ranks)
        self._processes = Processes(
            settings.command,
            self._environ,
            self._changed,
            self._inbox.drain,
            self._vault.descriptors,
            self._stacks,
        )
        self._courier: Courier | None = None
        self._backup: Backup | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._fetched = 0
        """Epoch for which peers were asked for what was lost here."""
        self._coordinator: Coordinator | None = None
        self._client: Client | None = None

    async def run(self) -> int:
        """The agent's exit code; a message for the pod's status has been left."""
        settings = self._settings
        if settings.coordinator:
            now = time.monotonic()
            uid = settings.pod.pod_uid
            self._coordinator = Coordinator(Gang(settings.gang, uid, settings.timing, now, Clock()))
        else:
            self._client = Client(settings.gang.coordinator, settings.gang.agent_port)
        self._server = Server(
            metrics.registry(self._figures),
            self._coordinator,
            settings.pod.replica_index,
            settings.gang.uid,
            self._vault,
        )
        if settings.gang.memory_every:
            self._courier = Courier(
                settings.gang.uid, settings.gang.agent_port, settings.peer_bytes_per_second
            )
            self._backup = Backup(self._vault, self._courier, lambda: self._command)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminate)
        tasks: list[asyncio.Task[Any]] = []
        try:
            self._inbox.open()
            self._processes.open()
            await self._server.open(settings.bind, settings.gang.agent_port)
            if self._coordinator is not None:
                tasks.append(asyncio.create_task(self._coordinator.run()))
            contact = asyncio.create_task(self._keep_contact())
            tasks.append(contact)
            if self._backup is not None:
                tasks.append(asyncio.create_task(self._backup.run()))
            steer = asyncio.create_task(self._steer())
            tasks.append(steer)
            # A task that ends by itself, but for the steering one, has failed: so does the agent.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {steer}:
                task.result()
            code = steer.result()
            contact.cancel()
            await self._part(code)
            self._leave_message(code)
            return code
        finally:
            if self._fetching is not None:
                tasks.append(self._fetching)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._processes.close()
            await self._server.close()
            if self._courier is not None:
                await self._courier.close()
            self._vault.close()
            self._stacks.close()
            if self._client is not None:
                await self._client.close()
            self._inbox.close()

    # Facts

    def _terminate(self) -> None:
        if self._leaving_since is None:
            log.info("asked to leave")
            self._leaving_since = time.monotonic()
            trainers = self._processes.trainers.values()
            self._to_save = {trainer.rank for trainer in trainers if trainer.exit is None}
            self._changed()

    def _take(self, message: Message) -> None:
        if not self._processes.take(message):
            return
        if isinstance(message, StepMessage):
            first = message.rank not in self._steps
            self._steps[message.rank] = message
            if first:
                self._news.set()
                if self._command is not None and self._command.action == "start":
                    # All have what they go on from: nobody will fetch what others keep by now.
                    self._vault.keep_copies(self._command.keeps)
        if isinstance(message, EvalMessage) and message.rank == 0:
            self._eval_loss = message.eval_loss
        if self._coordinator is not None:
            self._coordinator.message(message)

    def _changed(self) -> None:
        for line in self._processes.warnings:
            log.warning("%s", line)
        self._processes.warnings.clear()
        self._count_ends()
        self._wake.set()
        self._news.set()

    def _count_ends(self) -> None:
        alive = self._processes.alive
        if self._was_alive and not alive:
            if stacks := self._processes.stacks():
                log.info("%s", stacks)
            for trainer in self._processes.trainers.values():
                assert trainer.exit is not None
                self._ends[_outcome(trainer.exit.code, trainer.exit.stopped)] += 1
            # What they left behind outside of their process groups.
            self._processes.kill_orphans()
        self._was_alive = alive

    def _situation(self) -> Situation:
        trainers = self._processes.trainers.values()
        ends = [t.exit for t in trainers if t.rank in self._to_save and t.exit is not None]
        return Situation(
            ready=self._processes.ready and self._fetching is None,
            alive=self._processes.alive,
            epoch=self._processes.epoch,
            command=self._command,
            contact=self._contact,
            leaving_since=self._leaving_since,
            saved=all(end.code in (ExitCode.COMPLETE, ExitCode.CHECKPOINTED) for end in ends),
            dumped_at=self._dumped_at,
            sent=self._sent,
            sent_at=self._sent_at,
        )

    def _beat(self, wait_seconds: float) -> Heartbeat:
        pod = self._settings.pod
        self._sequence += 1
        idle_now = not self._processes.alive
        idle = self._vault if idle_now else None
        return Heartbeat(
            uid=self._settings.gang.uid,
            replica=pod.replica_index,
            incarnation=self._incarnation,
            started=self._started,
            sequence=self._sequence,
            pod=pod.pod_name,
            node=pod.node_name,
            ready=self._processes.ready,
            leaving=self._leaving_since is not None,
            finished=self._finished,
            epoch=self._processes.epoch,
            ranks=self._processes.status(),
            address=self._settings.bind or (self._server.address if self._coordinator else None),
            memory=idle.list_own() if idle else [],
            copies=idle.list_copies() if idle else [],
            copy_seconds=self._backup.seconds if self._backup else None,
            ledger=self._command.ledger if self._command and idle_now else None,
            seen=self._command.key if self._command else "",
            wait_seconds=wait_seconds,
        )

    # Contact

    async def _exchange(self, wait_seconds: float) -> Command:
        beat = self._beat(wait_seconds)
        if self._coordinator is not None:
            return await self._coordinator.exchange(beat)
        assert self._client is not None
        return await self._client.exchange(beat)

    async def _keep_contact(self) -> None:
        while True:
            self._news.clear()
            asked = asyncio.create_task(self._exchange(self._settings.timing.heartbeat))
            news = asyncio.create_task(self._news.wait())
            try:
                await asyncio.wait({asked, news}, return_when=asyncio.FIRST_COMPLETED)
                if asked.done():
                    self._obey(asked.result())
            except (UnreachableError, ValidationError) as error:
                # The second: of what others told the coordinator here, none of which may end it.
                self._complain(error)
                await asyncio.sleep(RETRY_SECONDS * random.uniform(0.7, 1.3))
            finally:
                for task in (asked, news):
                    task.cancel()
                await asyncio.gather(asked, news, return_exceptions=True)

    def _obey(self, command: Command) -> None:
        self._contact = time.monotonic()
        if self._complained > float("-inf"):
            log.info("the coordinator answers")
            self._complained = float("-inf")
        if self._command is None or command.key != self._command.key:
            # The coordinator's own news say it better.
            if self._coordinator is None and command.message:
                log.info("%s", command.message)
            if self._fetching is not None:
                self._fetching.cancel()
            self._wake.set()
        self._command = command

    def _complain(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._complained < COMPLAIN_SECONDS:
            return
        self._complained = now
        gang = self._settings.gang
        log.info("no coordinator yet: %s:%d %s", gang.coordinator, gang.agent_port, error)

    # Deeds

    async def _steer(self) -> int:
        """Do what is decided until that is to exit; the exit code."""
        while True:
            self._wake.clear()
            step = member.decide(self._situation(), time.monotonic(), self._settings.timing)
            match step:
                case member.Quit(code):
                    return code
                case member.Start(epoch):
                    if not self._begin_fetch(epoch):
                        self._start(epoch)
                case member.Dump():
                    self._dumped_at = time.monotonic()
                    self._processes.dump_stacks()
                case member.Send(number):
                    self._sent, self._sent_at = number, time.monotonic()
                    log.info("sending %s to the trainers", signal.Signals(number).name)
                    self._processes.signal(number)
                case None:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), RECHECK_SECONDS)

    def _begin_fetch(self, epoch: int) -> bool:
        """Take what this pod lacks from peers' memory, once per epoch; False if there is nothing."""
        command, vault, courier = self._command, self._vault, self._courier
        if command is None or courier is None or not command.fetch:
            return False
        if self._fetched == epoch:
            return False
        self._fetched = epoch
        self._fetching = asyncio.create_task(self._fetch(command.fetch, vault, courier))
        return True

    async def _fetch(self, wanted: Sequence[Fetch], vault: Vault, courier: Courier) -> None:
        begin = time.monotonic()
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                for item in wanted:
                    await courier.fetch(item, vault)
                    log.info(
                        "took rank %d's checkpoint of step %d from the memory of %s (%.2f s)",
                        *(item.rank, item.step, item.host, time.monotonic() - begin),
                    )
        except (UnreachableError, OSError) as error:
            # The ranks will find that they have less in common, and go on from that.
            log.warning("a peer's memory could not be had: %s", error or "not in time")
        finally:
            self._fetching = None
            self._wake.set()

    def _start(self, epoch: int) -> None:
        settings = self._settings
        master = self._command.master_address if self._command else None
        if self._coordinator is not None:
            master = self._server.address
        environments = trainer_environments(
            settings.gang,
            settings.pod.replica_index,
            epoch,
            master or LOOPBACK,
            self._inbox.name,
            self._environ,
            lambda rank: {**self._vault.environment(rank), **self._stacks.environment(rank)},
        )
        self._sent, self._dumped_at = None, None
        self._steps.clear()
        self._starts += 1
        ranks = list(environments)
        log.info("epoch %d: starting ranks %d to %d", epoch, ranks[0], ranks[-1])
        self._processes.spawn(epoch, environments)

    async def _part(self, code: int) -> None:
        """Say goodbye, so that nobody waits for this pod."""
        self._finished = self._leaving_since is None
        limit = PARTING_SECONDS
        while limit > 0:
            began = time.monotonic()
            try:
                async with asyncio.timeout(limit):
                    await self._exchange(0)
                break
            except (UnreachableError, ValidationError, TimeoutError):
                await asyncio.sleep(0.1)
            limit -= time.monotonic() - began
        if self._coordinator is not None:
            if self._finished:
                await self._coordinator.see_off()
            else:
                await self._coordinator.linger()
        log.info("exits with code %d", code)

    def _leave_message(self, code: int) -> None:
        failure = self._command.failure if self._command else None
        if failure is None and code not in (ExitCode.COMPLETE, ExitCode.CHECKPOINTED):
            failure = Failure(
                reason="Terminated",
                message="the trainers did not save their state before the pod's end",
                replica=self._settings.pod.replica_index,
                retryable=True,
            )
        leaving = self._leaving_since is not None
        if self._coordinator is not None and (leaving or failure is None):
            # Its report is all that is left of the training's figures once the pod is gone.
            report = self._coordinator.gang.report(time.monotonic())
            text = termination.report_message(report, failure)
        elif failure is not None:
            text = termination.failure_message(failure)
        else:
            return
        termination.write(self._settings.termination_log, text)

    def _figures(self) -> metrics.Figures:
        now = time.monotonic()
        gang = self._coordinator.gang if self._coordinator else None
        progress = gang.progress(now) if gang else None
        return metrics.Figures(
            epoch=self._processes.epoch,
            starts=self._starts,
            processes=sum(t.exit is None for t in self._processes.trainers.values()),
            ready=self._processes.ready,
            coordinator_silence=now - self._contact,
            steps=dict(self._steps),
            eval_loss=self._eval_loss,
            exits=dict(self._ends),
            restarts=dict(gang.restart_counts) if gang else None,
            longest_silence=gang.longest_silence(now) if gang else None,
            goodput=progress.goodput if progress else None,
            seconds=gang.ledger.state(now) if gang else None,
            memory_bytes=self._vault.bytes_used,
            copied_bytes=self._backup.bytes_sent if self._backup else None,
        )


def _outcome(code: int | None, stopped: bool) -> str:
    if code == ExitCode.COMPLETE:
        return "completed"
    if code == ExitCode.CHECKPOINTED:
        return "checkpointed"
    return "stopped" if stopped else "failed"
