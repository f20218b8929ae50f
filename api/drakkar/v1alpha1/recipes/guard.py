"""What a recipe does about losses that are no numbers, or jump."""

from typing import Literal

from pydantic import Field

from drakkar.v1alpha1.recipes.settings import Settings


class GuardConfig(Settings):
    """Each batch is judged before the optimizer takes it: one that is passed over changes nothing."""

    non_finite: Literal["fail", "pass"] = Field(
        default="fail",
        description="A loss or gradient that is no number. fail: the processes restart from the last "
        "checkpoint, and the job ends if it comes again. pass: the batch is passed over.",
    )
    spike: Literal["off", "tell", "pass"] = Field(
        default="tell",
        description="A loss far above those before. tell: in the log. pass: the batch is passed over.",
    )
    sigmas: float = Field(
        default=10.0, ge=3, le=1000, description="Robust deviations above the median that are far."
    )
    in_a_row: int = Field(
        default=3,
        ge=1,
        le=100,
        description="After so many wrong batches in a row the training goes back to the checkpoint "
        "before and goes on with the batch after them.",
    )
    replay_every: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Every so many steps each rank computes one micro-batch twice and compares all bits: "
        "a device that computes wrongly is named. Costs two passes each time; 0 for never.",
    )
