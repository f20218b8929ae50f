"""The trainer: one rank's process. ``main`` is what the agent's fork server calls in its children."""

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the environment and ``argv`` say; an ``ExitCode``. See ``entry.main``."""
    # Imported here, so that asking for a name of this package does not load torch.
    from drakkar_workers.train.entry import main as run

    return run(argv)
