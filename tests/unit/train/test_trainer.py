"""The order of what the training loop does around its steps."""

from types import SimpleNamespace

import pytest

from drakkar_workers.memory.marks import NoMarks
from drakkar_workers.train.trainer import Agreed, Trainer


class Loop(Trainer):
    """Only the loop: what it calls is noted."""

    def __init__(self, *, steps: int, leave_at: int) -> None:
        self._recipe = SimpleNamespace(steps=steps, eval_every=2)
        self._settings = SimpleNamespace(checkpoint_every=100)
        self._reporter = SimpleNamespace(phase=lambda _phase: None)
        self._saver = None
        self._memory = None
        self._marks = NoMarks()
        self._leave_at = leave_at
        self.step = self.passed_over = self.first_batch = 0
        self.productive_seconds = 0.0
        self._stall = 0.0
        self.deeds: list[str] = []

    def _train_step(self, requests):
        return Agreed(loss=1.0, save=False, leave=self.step + 1 >= self._leave_at)

    def _tell(self, loss, seconds):
        self.deeds.append("step")

    def evaluate(self):
        self.deeds.append("evaluate")
        return 1.0

    def _save_last(self, *, final=False):
        self.deeds.append("save all" if final else "save")


@pytest.mark.parametrize(
    ("leave_at", "deeds", "complete"),
    [
        (9, ["step", "step", "evaluate", "step", "step", "evaluate", "save all"], True),
        (1, ["step", "save"], False),
        (2, ["step", "step", "save"], False),
        (
            4,
            ["step", "step", "evaluate", "step", "step", "save all", "evaluate", "save all"],
            True,
        ),
    ],
)
def test_who_is_asked_to_leave_saves_first(leave_at, deeds, complete):
    loop = Loop(steps=4, leave_at=leave_at)
    assert loop.run(None) is complete
    assert loop.deeds == deeds
