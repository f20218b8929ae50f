"""From the environment to an exit code: sets a run up, runs it, and names what went wrong."""

import contextlib
import errno
import json
import os
import sys
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from drakkar.exitcodes import ExitCode
from drakkar_workers import channel
from drakkar_workers.errors import ConfigError, TrainingError
from drakkar_workers.train import control, flops, settings
from drakkar_workers.train import world as worlds
from drakkar_workers.train.checkpoint import layout, memory, restore, store
from drakkar_workers.train.checkpoint.memory import Memory
from drakkar_workers.train.checkpoint.objects import ObjectPath, Place
from drakkar_workers.train.checkpoint.saver import Saver
from drakkar_workers.train.recipes.registry import open_task
from drakkar_workers.train.recipes.task import Task
from drakkar_workers.train.report import Reporter
from drakkar_workers.train.settings import Settings
from drakkar_workers.train.trainer import Trainer
from drakkar_workers.train.world import World

METRICS = "metrics.jsonl"
RUN_FILE = "run.json"
SAVING_TIMEOUTS = 5
"""A save may take this many times as long as a step before it is taken for hung."""
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
"""Errors of a checkpoint folder that stay until somebody changes the volume or the path. EEXIST: a
file is where the folder should be."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train one rank; an ``ExitCode``. ``argv`` is the command line without the program's name.

    Called once per process, in its main thread: it sets signal handlers and starts threads which
    end with the process. Never raises an Exception; what went wrong is printed on stderr and told
    to the agent as an error message.
    """
    environ = dict(os.environ)
    rank = int(environ["RANK"]) if environ.get("RANK", "").isdigit() else 0
    try:
        run_settings = settings.read(settings.parse_arguments(argv or []), environ)
        return run(run_settings, environ)
    except ConfigError as error:
        return _fail(rank, "ConfigError", str(error), ExitCode.CONFIG)
    except TrainingError as error:
        return _fail(rank, error.reason, str(error), ExitCode.CRASHED)
    except Exception as error:
        traceback.print_exc()
        reason = "PeerLost" if lost_peer(error) else type(error).__name__
        return _fail(rank, reason, " ".join(str(error).split()), ExitCode.CRASHED)


def run(given: Settings, environ: Mapping[str, str]) -> ExitCode:
    """Train one rank as told. Raises ConfigError, TrainingError, and torch's errors."""
    control.wait_quietly()
    worlds.quieten()
    rank, recipe, folder = given.rank, given.recipe, given.checkpoint_dir
    reporter = Reporter(
        rank=rank.rank,
        epoch=given.epoch,
        total_steps=recipe.steps,
        metrics=folder / METRICS if isinstance(folder, Path) else None,
    )
    reporter.phase("starting")
    torch.set_num_threads(worlds.thread_count(environ, rank.local_world_size))
    if folder is not None:
        check_writable(folder, rank.rank)
    task = open_task(recipe, environ)
    world = worlds.meet(rank, given.timeout_seconds)
    with control.listening() as requests:
        _check_same_data(task, world)
        trainer = _set_up(given, task, world, reporter)
        _restore(given, trainer, world, reporter)
        trainer.warm_up()
        complete = trainer.run(requests)
    if not complete:
        reporter.say(f"asked to leave at step {trainer.step}; state is saved")
        worlds.part(world)
        return ExitCode.CHECKPOINTED
    text = None
    # A sample's length is no multiple of anything, so that nobody can share its positions.
    if trainer.layout.context == 1 and (world.is_first or trainer.layout.sharded):
        text = task.sample(trainer.model, trainer.precision(), trainer.layout.tensor)
    if text is not None and world.is_first:
        reporter.sample(text)
    reporter.phase("done")
    worlds.part(world)
    return ExitCode.COMPLETE


def check_writable(folder: Place, rank: int) -> None:
    """Make the checkpoint folder and a file in it.

    Raises ConfigError with the path and the uid if that is not allowed, TrainingError if storage
    fails: a full disk or a lost server may be better at the next try.
    """
    probe = folder / f"{layout.TEMPORARY}probe-{rank}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if rank == 0:
            # Half-written checkpoints of former tries may be what fills the disk.
            store.of(folder).clean()
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        missing = isinstance(folder, ObjectPath) and error.errno == errno.ENOENT
        if error.errno not in FORBIDDEN and not missing:
            raise TrainingError(
                "StorageError", f"checkpoint folder {folder}: {error.strerror or error}"
            ) from None
        if isinstance(folder, ObjectPath):
            raise ConfigError(
                f"checkpoint storage {folder} can't be written: {error.strerror}; check the URL and "
                "the rights of the credentials in spec.checkpoint.storage.objectStore"
            ) from None
        raise ConfigError(
            f"checkpoint folder {folder} can't be written as uid {os.getuid()} gid {os.getgid()}: "
            f"{error.strerror}; give it to this user, or set fsGroup on the volume"
        ) from None


def lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because another rank is gone: a victim, not the culprit."""
    if isinstance(error, dist.DistNetworkError | dist.DistBackendError | dist.DistStoreError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("gloo/", "Connection closed by peer", "Connection reset by peer")
    )


def _set_up(given: Settings, task: Task, world: World, reporter: Reporter) -> Trainer:
    saver, started = None, time.time()
    if given.checkpoint_dir is not None:
        folder = given.checkpoint_dir
        attempt = world.from_first(f"{given.epoch}-{uuid.uuid4().hex[:8]}")
        restore.by_first(world, lambda: layout.claim(folder, attempt))
        if world.is_first:
            store.of(folder).clean(attempt)
            started = first_start(folder, started)
        saver = Saver(
            folder,
            keep=given.checkpoint_keep,
            attempt=attempt,
            world=world,
            pulse=reporter.pulse,
            patience=SAVING_TIMEOUTS * given.timeout_seconds,
        )
    started = world.from_first(started)
    trainer = Trainer(
        given,
        task,
        world,
        reporter,
        saver=saver,
        memory=_memory(given, world, reporter),
        marks=memory.marks_from_environ(os.environ),
        started=started,
    )
    if world.is_first:
        count, active = flops.parameter_count(task.shape), flops.active_parameter_count(task.shape)
        used = f" ({active / 1e6:.2f}M active)" if active != count else ""
        precision = "bf16 autocast" if trainer.bf16 else "fp32"
        reporter.say(
            f"model: {count / 1e6:.2f}M parameters{used}, {precision}, {world.size} rank(s) on "
            f"{world.device.type} ({trainer.layout.about()}), {torch.get_num_threads()} thread(s) each"
        )
        reporter.say(task.about())
        if task.baseline is not None:
            reporter.record(step=trainer.step, unigram_loss=task.baseline)
    return trainer


def _memory(given: Settings, world: World, reporter: Reporter) -> Memory | None:
    """Checkpoints in memory, if the job wants them and every rank has an agent that keeps them."""
    arena = memory.from_environ(os.environ) if given.memory_every else None
    if not all(world.gather(arena is not None)):
        return None
    assert arena is not None
    # Data parallel: the ranks differ in their random numbers alone.
    parallel = given.recipe.parallel
    return Memory(
        arena,
        world,
        epoch=given.epoch,
        shared=parallel.shard == 1 and parallel.tensor == 1,
        warn=reporter.warn,
        pulse=reporter.pulse,
    )


def _restore(given: Settings, trainer: Trainer, world: World, reporter: Reporter) -> None:
    reporter.phase("restoring")
    own_job = True
    found = None
    folder = given.checkpoint_dir
    stored = restore.by_first(world, store.of(folder).newest_step) if folder else 0
    trainer.first_batch = (
        restore.by_first(world, lambda: layout.read_position(folder)) if folder else 0
    )
    if trainer.recall(at_least=stored):
        reporter.resume(trainer.step, "memory", f"resuming at step {trainer.step} from memory")
        return
    if given.checkpoint_dir is not None:
        found = restore.newest(given.checkpoint_dir, world, reporter.warn, pulse=reporter.pulse)
        # What was published last may be damaged: then memory may have a later step than storage.
        if trainer.recall(at_least=found.manifest.step + 1 if found else 0):
            reporter.resume(trainer.step, "memory", f"resuming at step {trainer.step} from memory")
            return
    if found is None and given.restore_from is not None:
        own_job = False
        found = _source(given.restore_from, world, reporter)
    if found is None:
        reporter.resume(0, "start", "starting at step 0")
        trainer.settle()
        return
    trainer.restore(found, own_job=own_job)
    text = f"resuming at step {trainer.step} from {found.folder}"
    # Another job's checkpoint is where this one starts.
    reporter.resume(trainer.step, "storage" if own_job else "start", text)


def _source(folder: Place, world: World, reporter: Reporter) -> restore.Found:
    """The checkpoint that ``restoreFrom`` names: a step's folder, or a folder of them."""
    trouble: str | None = None
    is_step = restore.by_first(world, lambda: restore.exists(folder / layout.MANIFEST))
    if is_step:
        found, trouble = restore.check(folder, world, reporter.pulse)
    else:
        found = restore.newest(folder, world, reporter.warn, move=False, pulse=reporter.pulse)
    if found is None:
        why = trouble or "no checkpoint there"
        raise ConfigError(f"spec.checkpoint.restoreFrom: {folder}: {why}")
    return found


def first_start(folder: Place, now: float) -> float:
    """When the training in this folder first began; now, if it begins now."""
    path = folder / RUN_FILE
    try:
        return float(json.loads(path.read_text())["started"])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError):
        return now
    # On a full disk it is not written; checkpoints carry the time, too.
    with contextlib.suppress(OSError):
        layout.write_synced(path, json.dumps({"started": now}).encode())
    return now


def _check_same_data(task: Task, world: World) -> None:
    digests = world.gather(task.digest)
    others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise ConfigError(
            f"data.source: rank {others[0]} has other tokens than rank 0: "
            "their nodes hold different versions of the text"
        )


def _fail(rank: int, reason: str, message: str, code: ExitCode) -> ExitCode:
    print(f"[rank {rank}] {reason}: {message}", file=sys.stderr, flush=True)
    channel.send_error(rank=rank, reason=reason, message=message)
    return code
