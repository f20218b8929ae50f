"""How a training pod says why it ended; the numbers follow sysexits.h where one fits."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit code of the agent, and so of a training pod's container."""

    COMPLETE = 0
    """The training is done and its last checkpoint is published."""
    CRASHED = 1
    """A trainer failed more often than it may be restarted in place."""
    CHECKPOINTED = 75
    """Asked to leave by SIGTERM; state is saved. Not a fault: the rank can run elsewhere."""
    CONFIG = 78
    """The configuration can't work (bad value, unwritable path): trying again won't help."""
