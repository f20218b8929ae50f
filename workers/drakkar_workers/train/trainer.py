"""The training loop of one rank.

Steps are counted as done: step 5 is the state after five updates, and it is computed from the
windows of step index 4.
"""

import contextlib
import dataclasses
import time

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from drakkar_workers.errors import ConfigError, TrainingError
from drakkar_workers.memory.marks import Marks, NoMarks
from drakkar_workers.train import flops, optimizer, replay
from drakkar_workers.train.checkpoint import layout
from drakkar_workers.train.checkpoint.layout import Manifest
from drakkar_workers.train.checkpoint.memory import DamagedError, Memory
from drakkar_workers.train.checkpoint.objects import relative
from drakkar_workers.train.checkpoint.restore import Found, load_tensors
from drakkar_workers.train.checkpoint.saver import Export, Outcome, Saver
from drakkar_workers.train.checkpoint.state import (
    RandomState,
    local_parts,
    prepare_optimizer,
    rank_file,
    seed_all,
    tensors_of,
    whole,
)
from drakkar_workers.train.control import Requests
from drakkar_workers.train.guard import Guard, Verdict
from drakkar_workers.train.models.decoder import Shape
from drakkar_workers.train.models.experts import balance, mixtures, take_load
from drakkar_workers.train.parallel.clip import clip_gradients
from drakkar_workers.train.parallel.mesh import lay_out
from drakkar_workers.train.parallel.parallelize import parallelize
from drakkar_workers.train.recipes.task import Batch, Share, Task
from drakkar_workers.train.report import Reporter
from drakkar_workers.train.settings import Settings
from drakkar_workers.train.world import World, computes_bf16


@dataclasses.dataclass(frozen=True, slots=True)
class Agreed:
    """What all ranks know after a step's all-reduce."""

    loss: float
    """Nats per token, mean over all ranks' targets."""
    save: bool
    leave: bool
    taken: bool = True
    """False if the batch was passed over: no step was made."""


class Trainer:
    """Model, optimizer and position of one rank; every rank makes the same calls."""

    def __init__(
        self,
        settings: Settings,
        task: Task,
        world: World,
        reporter: Reporter,
        *,
        saver: Saver | None,
        memory: Memory | None = None,
        marks: Marks | None = None,
        started: float,
    ) -> None:
        self._settings = settings
        self._recipe = settings.recipe
        self._task = task
        self._world = world
        self._reporter = reporter
        self._saver = saver
        self._memory = memory
        self._marks = marks or NoMarks()
        self.started = started
        self.productive_seconds = 0.0
        self.step = 0
        self.passed_over = 0
        """Batches so far that no step was made of: step index plus these is the next batch."""
        self.first_batch = 0
        """Those before it are not used, whatever checkpoint the training goes on from."""
        self._guard = Guard(settings.recipe.guard)
        self._stall = 0.0
        """Seconds that saves have held the training up since the last step."""
        self._saved_step: int | None = None
        """Step of the newest save that was begun and has not failed."""

        seed_all(self._recipe.seed)
        self.layout = lay_out(self._recipe.parallel, world)
        self._share = Share(self.layout.data_rank, self.layout.data, world.device)
        self.bf16 = self._agree_on_bf16()
        self.model = task.build().to(world.device)
        self._mixtures = mixtures(self.model)
        self._parallel = parallelize(
            self.model, self.layout, self._recipe.parallel, world.device, bf16=self.bf16
        )
        self._replicated = isinstance(self._parallel, DistributedDataParallel)
        self._optimizer = optimizer.build(self.model, self._recipe)
        prepare_optimizer(self._optimizer, 0)
        seed_all(self._recipe.seed + world.rank)
        self._flops_per_token = flops.flops_per_token(task.shape, self._recipe.sequence_length)
        name = torch.cuda.get_device_name() if world.device.type == "cuda" else "cpu"
        peak = flops.peak_flops(name, bf16=self.bf16)
        self._peak = peak * world.size if peak else None
        doubt = flops.doubtful_peak(name, bf16=self.bf16)
        if doubt and world.rank == 0:
            self._reporter.say(doubt)

    def precision(self) -> torch.autocast:
        """Context for forward passes."""
        return torch.autocast(self._world.device.type, torch.bfloat16, enabled=self.bf16)

    def restore(self, found: Found, *, own_job: bool) -> None:
        """Take over the state of a checkpoint; ``own_job`` also its clocks.

        Raises ConfigError if it holds another model or was trained on other tokens.
        """
        own = rank_file(self._world.rank)
        mine = (found.folder / own).read_bytes() if own in found.manifest.files else None
        self._check(found.manifest, str(found.folder), own_job=own_job)
        load_tensors(found.folder, tensors_of(self.model, self._optimizer))
        if own_job:
            self._saved_step = found.manifest.step
        self._resume(found.manifest, mine, own_job=own_job)
        self.settle()

    def recall(self, at_least: int) -> bool:
        """Take over the newest state in memory that all ranks have, if its step is not below this.

        Raises ConfigError as ``restore`` does, TrainingError if it can't be what it should be.
        """
        if self._memory is None:
            return False
        found = self._memory.recall(at_least)
        if found is None:
            return False
        manifest = Manifest.model_validate(found.meta)
        where = f"of step {manifest.step} in memory"
        self._check(manifest, where, own_job=True)
        try:
            self._memory.load(found, local_parts(tensors_of(self.model, self._optimizer)))
        except DamagedError as error:
            raise TrainingError("CheckpointDamaged", f"checkpoint {where}: {error}") from None
        self._resume(manifest, found.own if found.is_mine else None, own_job=True)
        self._memory.settle(self.step, found.key)
        return True

    def settle(self) -> None:
        """What memory holds of another past than this step's is not of this training."""
        if self._memory is not None:
            self._memory.settle(self.step, None)

    def _check(self, manifest: Manifest, where: str, *, own_job: bool) -> None:
        expected, absent = self._task.manifest_model(), Shape.defaults()
        # Sizes that a checkpoint does not know were not there when it was written.
        differing = [k for k in expected if manifest.model.get(k, absent.get(k)) != expected[k]]
        if differing:
            key = differing[0]
            raise ConfigError(
                f"checkpoint {where} is of another model: {key} is "
                f"{manifest.model.get(key, absent.get(key))} there and {expected[key]} here; "
                "use another checkpoint folder or the same model"
            )
        if own_job and manifest.data_sha256 != self._task.digest:
            self._reporter.warn(f"checkpoint {where} was trained on other data")

    def _resume(self, manifest: Manifest, own: bytes | None, *, own_job: bool) -> None:
        prepare_optimizer(self._optimizer, manifest.step)
        self.step = manifest.step
        self.passed_over = manifest.passed_over if own_job else 0
        if own_job:
            self.started = manifest.started
            self.productive_seconds = manifest.productive_seconds
        if manifest.world_size == self._world.size and own is not None:
            RandomState.load(own).restore(self._world.device)
        else:
            # Another number of ranks: no rank's old generators are this rank's.
            seed_all(self._recipe.seed + self._world.rank + self.step * self._world.size)

    def warm_up(self) -> None:
        """One backward pass that changes nothing.

        DDP lays its buckets out anew after the first pass, and so sums gradients in another order:
        without this a resumed run would differ from an uninterrupted one in the last bits.
        """
        if not self._replicated:
            return
        length = min(8 * self.layout.context, self._recipe.sequence_length)
        ids = torch.zeros(2, 2, length, dtype=torch.long, device=self._world.device)
        for part in ids:
            with self.precision():
                loss = self._parallel(part, part)
            (loss * 0.0).backward()
        self._optimizer.zero_grad(set_to_none=False)

    def run(self, requests: Requests) -> bool:
        """Train to the last step. False if the gang was asked to leave before, its state saved.

        Raises TrainingError for a loss that is no number, or if the last state can't be saved.

        Whoever is asked to leave has little time: the state is saved before anything is evaluated.
        """
        recipe, every = self._recipe, self._settings.checkpoint_every
        evaluated = -1
        self.passed_over = max(self.passed_over, self.first_batch - self.step)
        if self._memory is not None and recipe.steps > self.step:
            self._memory.reserve(local_parts(tensors_of(self.model, self._optimizer)))
        self._reporter.phase("training")
        while self.step < recipe.steps:
            begin = time.monotonic()
            agreed = self._train_step(requests)
            if not agreed.taken:
                self.passed_over += 1
                if agreed.leave:
                    self._save_last()
                    return False
                continue
            self.step += 1
            seconds = time.monotonic() - begin
            self.productive_seconds += seconds
            self._tell(agreed.loss, seconds)
            due = self.step % recipe.eval_every == 0 or self.step == recipe.steps
            if due and not agreed.leave:
                self.evaluate()
                evaluated = self.step
            self._note(self._saver.poll() if self._saver else None)
            if self.step == recipe.steps:
                if agreed.leave:
                    self._save_last(final=True)
                break
            if agreed.leave:
                self._save_last()
                return False
            begin = time.monotonic()
            self._marks.enter("save")
            if agreed.save or self.step % every == 0:
                self._save()
            self._remember()
            self._stall += time.monotonic() - begin
        if evaluated != self.step:
            self.evaluate()
        self._save_last(final=True)
        return True

    def evaluate(self) -> float:
        """Held-out loss in nats per token, over all ranks; counts as productive time."""
        begin = time.monotonic()
        self._marks.enter("evaluate")
        total = weight = 0.0
        self.model.eval()
        # FSDP's parameters may not be touched in inference mode.
        plain = torch.no_grad() if self.layout.sharded else torch.inference_mode()
        with plain, self.precision(), self.layout.loss_context():
            for batch, part in self._task.held_out(self._share, self._recipe.gradient_accumulation):
                total += self._task.loss(self.model, batch).item()
                weight += part
                self._reporter.pulse()
        self.model.train()
        if isinstance(self.model, FSDPModule):
            # Without a backward pass the last weights that were gathered would stay.
            self.model.reshard()
        total, weight = self._world.sum((total, weight))
        # Ranks that share a sequence have a part of its loss, and all of its weight.
        loss = total / weight * self.layout.context
        self.productive_seconds += time.monotonic() - begin
        self._reporter.evaluation(step=self.step, loss=loss, baseline=self._task.baseline)
        return loss

    def _train_step(self, requests: Requests) -> Agreed:
        recipe, world = self._recipe, self._world
        self._marks.enter("data")
        micros = recipe.gradient_accumulation
        # All ranks know the weight of the whole step: the gradient is that of its mean, however the
        # step is spread over ranks and micro-batches. DDP and FSDP take the mean over ranks, hence
        # the factor.
        index = self.step + self.passed_over
        weight = self._task.weight(index)
        scale = self.layout.reduced / weight
        loss_sum = torch.zeros((), device=world.device)
        for micro in range(micros):
            batch = self._task.batch(index, self._share, micro, micros)
            if micro == 0:
                self._replay(batch)
            with self._synchronise(micro == micros - 1), self.layout.loss_context():
                self._marks.enter("forward")
                with self.precision():
                    loss = self._task.loss(self._parallel, batch)
                self._marks.enter("backward")
                (loss * scale).backward()  # type: ignore[no-untyped-call]
            loss_sum += loss.detach()
        self._marks.enter("all-reduce")
        total, save, leave = world.sum((loss_sum.item(), *requests.take()))
        norm = clip_gradients(self.model, recipe.clip_norm)
        # Ranks of a tensor-parallel group all have the same loss.
        mean = total / self.layout.tensor / weight
        verdict = self._guard.judge(mean, float(norm))
        load = self._world.sum_tensor(take_load(self._mixtures)) if self._mixtures else None
        if verdict is not None and not self._accept(verdict, index):
            self._optimizer.zero_grad(set_to_none=not self._replicated)
            return Agreed(loss=mean, save=False, leave=leave > 0, taken=False)
        self._marks.enter("optimizer")
        self._balance(load)
        optimizer.set_learning_rate(self._optimizer, optimizer.learning_rate(self.step, recipe))
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=not self._replicated)
        return Agreed(loss=mean, save=save > 0, leave=leave > 0)

    def _balance(self, load: Tensor | None) -> None:
        """Spread the tokens of the next steps over all experts; ``load`` of all ranks in this one."""
        if load is None:
            return
        excess = balance(self._mixtures, load, self._task.balance_rate)
        self._reporter.measure(expert_excess=excess)

    def _replay(self, batch: Batch) -> None:
        """Where that is due, see that this rank computes the same twice. Raises TrainingError."""
        every = self._recipe.guard.replay_every
        if not every or self.step % every:
            return

        def loss() -> Tensor:
            with self.precision():
                return self._task.loss(self.model, batch)

        replay.check(self.model, loss, f"rank {self._world.rank}, step {self.step + 1}")

    def _accept(self, verdict: Verdict, index: int) -> bool:
        """Whether a step is made of this batch all the same. Raises TrainingError to end this attempt."""
        text = f"step {self.step + 1}, batch {index}: {verdict.message}"
        match verdict.act:
            case "fail":
                advice = (
                    "a lower learningRate or clipNorm, a longer warm-up or precision fp32 may help"
                )
                raise TrainingError(verdict.kind, f"{text}; {advice}")
            case "go back":
                self._forget_newest(index + 1)
                raise TrainingError(verdict.kind, f"{text}; going back to the checkpoint before")
        self._reporter.anomaly(
            step=self.step, batch=index, reason=verdict.kind, message=text, act=verdict.act
        )
        return verdict.act == "tell"

    def _forget_newest(self, batch: int) -> None:
        """Have the next attempt begin before the last update, and with this batch."""
        if self._memory is not None:
            self._memory.settle(self.step - 1, None)
        if self._settings.checkpoint_dir is not None:
            if self._world.is_first:
                layout.write_position(self._settings.checkpoint_dir, batch)
            self._world.sum((0.0,))

    def _synchronise(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients travel with the last micro-batch only."""
        if isinstance(self._parallel, FSDPModule):
            self._parallel.set_requires_gradient_sync(last)
        if last or not isinstance(self._parallel, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._parallel.no_sync()

    def _tell(self, loss: float, seconds: float) -> None:
        rate = self._task.tokens_per_step / seconds
        self._reporter.step(
            step=self.step,
            loss=loss,
            tokens_per_second=rate,
            mfu=rate * self._flops_per_token / self._peak if self._peak else None,
            step_seconds=seconds,
            productive_seconds=self.productive_seconds,
            stall_seconds=self._stall,
            started=self.started,
        )
        self._stall = 0.0

    def _save(self, *, final: bool = False) -> None:
        if self._saver is None:
            return
        self._saved_step = self.step
        tensors = tensors_of(self.model, self._optimizer)
        before = self._saver.save(
            tensors,
            manifest=self._manifest(),
            own=RandomState.capture(self._world.device).dump(),
            export=self._export(tensors) if final else None,
        )
        self._note(before)

    def _remember(self) -> None:
        """Copy the state to memory that outlives this process, where that is due."""
        if self._memory is None or self.step % self._settings.memory_every:
            return
        self._memory.save(
            self.step,
            local_parts(tensors_of(self.model, self._optimizer)),
            meta=self._manifest().model_dump(mode="json"),
            own=RandomState.capture(self._world.device).dump(),
        )

    def _manifest(self) -> Manifest:
        recipe = self._recipe.model_dump(mode="json")
        return Manifest(
            step=self.step,
            world_size=self._world.size,
            time=time.time(),
            started=self.started,
            productive_seconds=self.productive_seconds,
            passed_over=self.passed_over,
            recipe=recipe,
            recipe_sha256=layout.recipe_digest(recipe),
            model=self._task.manifest_model(),
            data_sha256=self._task.digest,
            files={},
        )

    def _save_last(self, *, final: bool = False) -> None:
        """Save this state and wait until it is published."""
        if self._saver is None:
            return
        self._reporter.phase("saving")
        self._note(self._saver.wait())
        if self._saved_step == self.step:
            return
        self._save(final=final)
        outcome = self._saver.wait()
        if outcome is not None and outcome.superseded:
            self._note(outcome)
        if outcome is None or outcome.folder is None:
            why = outcome.error if outcome else "no outcome"
            raise TrainingError("CheckpointFailed", f"step {self.step} could not be saved: {why}")
        self._note(outcome)

    def _note(self, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        if outcome.superseded:
            raise TrainingError("Superseded", outcome.error or "a newer attempt has the folder")
        if outcome.folder is not None:
            root = self._settings.checkpoint_root or outcome.folder.parent
            self._reporter.checkpoint(
                step=outcome.step, path=relative(outcome.folder, root), seconds=outcome.seconds
            )
            return
        if self._saved_step == outcome.step:
            self._saved_step = None
        if self._world.is_first:
            self._reporter.trouble(
                "CheckpointFailed",
                f"checkpoint of step {outcome.step} failed: {outcome.error}; "
                "training goes on, the next one is tried in due course",
            )

    def _export(self, tensors: dict[str, Tensor]) -> Export:
        """How the saver writes what others read. Parts of ranks are put together here."""
        if not self.layout.sharded:
            return self._task.export
        gathered = whole(tensors, keep=self._world.is_first)
        return lambda folder, _staged: self._task.export(folder, gathered)

    def _agree_on_bf16(self) -> bool:
        """Whether to compute in bf16: all ranks or none, else their sums would differ in kind."""
        if self._recipe.precision != "auto":
            return self._recipe.precision == "bf16"
        able = self._world.sum((float(computes_bf16(self._world.device)),))[0]
        return able == self._world.size
