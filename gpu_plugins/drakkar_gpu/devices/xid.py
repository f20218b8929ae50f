"""What NVIDIA's driver reports as Xid, by how NVIDIA says to answer it.

Source: NVIDIA, XID Errors documentation, "Analyzing Xid Errors with the Xid Catalog" (Ampere and
newer). An Xid that a program caused leaves its GPU well.
"""

from dataclasses import dataclass
from enum import StrEnum

from drakkar_gpu.devices.base import Severity


class Answer(StrEnum):
    """NVIDIA's immediate action, in groups."""

    NONE = "no action"
    RESTART = "restart the program"
    CHECK = "check the hardware"
    RESET = "reset the GPU"
    REBOOT = "restart the machine"


SEVERITY = {
    Answer.NONE: Severity.WARNING,
    Answer.RESTART: Severity.WARNING,
    Answer.CHECK: Severity.UNHEALTHY,
    Answer.RESET: Severity.FATAL,
    Answer.REBOOT: Severity.FATAL,
}


@dataclass(frozen=True, slots=True)
class Xid:
    """One kind of event."""

    meaning: str
    answer: Answer

    @property
    def severity(self) -> Severity:
        """What it means for the device."""
        return SEVERITY[self.answer]


XIDS: dict[int, Xid] = {
    8: Xid("GPU stopped processing", Answer.RESTART),
    13: Xid("graphics engine exception", Answer.RESTART),
    31: Xid("GPU memory page fault", Answer.RESTART),
    32: Xid("invalid or corrupted push buffer stream", Answer.RESTART),
    43: Xid("GPU stopped processing for one program", Answer.NONE),
    45: Xid("preemptive cleanup due to previous errors", Answer.NONE),
    46: Xid("GPU stopped processing", Answer.RESET),
    48: Xid("uncorrectable (double bit) ECC error", Answer.RESET),
    54: Xid("auxiliary power is not connected", Answer.CHECK),
    62: Xid("internal micro-controller halt", Answer.RESET),
    63: Xid("row remapping or page retirement recorded", Answer.NONE),
    64: Xid("row remapping or page retirement failed", Answer.RESET),
    68: Xid("video decoder exception", Answer.RESTART),
    69: Xid("graphics engine class error", Answer.RESTART),
    74: Xid("NVLink error", Answer.CHECK),
    79: Xid("GPU has fallen off the bus", Answer.REBOOT),
    92: Xid("high rate of single bit ECC errors", Answer.NONE),
    94: Xid("contained memory error", Answer.RESTART),
    95: Xid("uncontained memory error", Answer.RESET),
    109: Xid("context switch timeout", Answer.RESET),
    110: Xid("security fault", Answer.RESET),
    119: Xid("no answer from the GPU System Processor", Answer.RESET),
    120: Xid("GPU System Processor error", Answer.RESET),
    121: Xid("corrected error of the chip-to-chip link", Answer.NONE),
    136: Xid("link training failed", Answer.RESET),
    140: Xid("unrecovered ECC error", Answer.RESET),
    143: Xid("GPU initialisation failure", Answer.RESET),
    144: Xid("NVLink: SAW error", Answer.CHECK),
    145: Xid("NVLink: RLW error", Answer.CHECK),
    146: Xid("NVLink: TLW error", Answer.CHECK),
    147: Xid("NVLink: TREX error", Answer.CHECK),
    148: Xid("NVLink: NVLPW_CTRL error", Answer.CHECK),
    149: Xid("NVLink: NETIR error", Answer.CHECK),
    150: Xid("NVLink: MSE error", Answer.CHECK),
    151: Xid("key rotation error", Answer.REBOOT),
    154: Xid("GPU recovery action changed", Answer.NONE),
    155: Xid("NVLink: software-defined error", Answer.RESET),
    156: Xid("resource retirement", Answer.RESET),
    157: Xid("resource retirement failed", Answer.RESET),
    158: Xid("GPU fatal timeout", Answer.RESET),
}

UNKNOWN = Xid("not in Drakkar's table of Xids", Answer.CHECK)


def classify(number: int) -> Xid:
    """The Xid by its number; one that is not in the table is to be checked."""
    return XIDS.get(number, UNKNOWN)
