"""Checkpoints for a training script of your own, in memory every few steps and on storage::

    from drakkar_workers import checkpoint

    saved = checkpoint.Checkpoint(model=model, optimizer=optimizer)
    for step in range(saved.restore() + 1, STEPS + 1):
        ...
        if saved.step(step, total_steps=STEPS, loss=loss.item()):
            sys.exit(checkpoint.LEAVE)
    saved.close()

Folder and intervals are those of ``spec.checkpoint``, unless they are given. Without Drakkar's agent
the same script saves to ``folder`` alone. docs/how-to/own-script.md tells more.
"""

from drakkar.exitcodes import ExitCode
from drakkar_workers.checkpoint.script import Checkpoint

LEAVE = int(ExitCode.CHECKPOINTED)
"""Exit code of a script that was asked to leave and has saved its state."""

__all__ = ["LEAVE", "Checkpoint"]
