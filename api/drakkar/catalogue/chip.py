"""One kind of accelerator: what it can do at best, and who says so."""

from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from drakkar import quantity

Precision = Literal["fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Positive = Annotated[float, Field(gt=0)]


class SourceKind(StrEnum):
    """Who states a figure, the most to be trusted first."""

    DATASHEET = "datasheet"
    """The vendor's data sheet, brochure or white paper."""
    DOCUMENTATION = "documentation"
    """The vendor's manual or documentation."""
    PAPER = "paper"
    """A paper by the vendor or with it."""
    ANNOUNCEMENT = "announcement"
    """The vendor's product page, keynote or announcement."""
    PRESS = "press"
    """Somebody else: treat the figure with care."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Entry):
    """Where a figure was read."""

    title: str
    date: Annotated[str, Field(pattern=r"^20\d\d(-[01]\d)?$", coerce_numbers_to_str=True)]
    kind: SourceKind
    read: str = ""
    """Where its figures were looked up: an address, or a repository and path. Empty if they were not
    found again after they had been written down: they are unconfirmed then."""


class Peaks(_Entry):
    """Dense peaks of matrix products, TFLOP/s (TOP/s for int8).

    None where the chip lacks the precision, or where no source gives a figure.
    """

    fp64: Positive | None = None
    fp32: Positive | None = None
    tf32: Positive | None = None
    bf16: Positive | None = None
    fp16: Positive | None = None
    fp8: Positive | None = None
    int8: Positive | None = None
    fp4: Positive | None = None


class Chip(_Entry):
    """An accelerator as runtimes count devices: where a module has two dies that are two devices
    to programs, the figures are those of one."""

    name: str
    vendor: str
    """As ``Vendor.name`` of the device plugin."""
    match: tuple[str, ...] = Field(min_length=1)
    """Names that the vendor's tools and PyTorch print, with * for any text."""
    year: int = Field(ge=2015, le=2100)
    tflops: Peaks
    memory: str | None = None
    """Quantity, such as 80Gi. Vendors' GB of device memory are powers of two."""
    memory_gbs: Positive | None = None
    """Bandwidth of the memory, 10^9 bytes/s."""
    fabric: str = ""
    """Name of the links between devices; empty if there are none."""
    fabric_gbps: Positive | None = None
    """Bandwidth of all of a device's fabric links together in one direction, Gbit/s."""
    nic_gbps: Positive | None = None
    """Network per device in the vendor's usual server, in one direction, Gbit/s."""
    tdp_watts: Positive | None = None
    note: str = ""
    source: str
    """Key of the source of all figures that ``sources`` doesn't name."""
    sources: dict[str, str] = Field(default_factory=dict)
    """Figure -> key of its source; figures of ``tflops`` are written tflops.fp8."""
    unconfirmed: frozenset[str] = frozenset()
    """Figures that were not found where their source was read. A file names those that a source which
    was read lacks; reading it adds those of sources that were not."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        known = self.figures()
        for field, named in (("sources", set(self.sources)), ("unconfirmed", self.unconfirmed)):
            unknown = sorted(named - set(known))
            if unknown:
                raise ValueError(f"{self.name}: {field} names {unknown}, which have no figure")
        if self.memory is not None and quantity.parse(self.memory) <= 0:
            raise ValueError(f"{self.name}: memory must be more than nothing")
        if self.fabric_gbps is not None and not self.fabric:
            raise ValueError(f"{self.name}: fabric_gbps is given, but not what the fabric is")
        return self

    def figures(self) -> dict[str, float | str]:
        """Every figure that is known, by its name in ``sources``."""
        peaks = {f"tflops.{name}": getattr(self.tflops, name) for name in PRECISIONS}
        others = ("memory", "memory_gbs", "fabric_gbps", "nic_gbps", "tdp_watts")
        return {
            name: value
            for name, value in (peaks | {name: getattr(self, name) for name in others}).items()
            if value is not None
        }

    def confirmed(self, figure: str) -> bool:
        """Whether a figure, such as tflops.bf16, is known and was found where its source was read."""
        return figure in self.figures() and figure not in self.unconfirmed

    def flops(self, precision: Precision = "bf16") -> float | None:
        """Dense peak of matrix products, FLOP/s; None where it is unknown."""
        value: float | None = getattr(self.tflops, precision)
        return None if value is None else value * 1e12

    @cached_property
    def memory_bytes(self) -> int | None:
        """Device memory in bytes, None where it is unknown."""
        return None if self.memory is None else quantity.amount("memory", self.memory)

    @property
    def memory_bandwidth(self) -> float | None:
        """Bandwidth of the memory, bytes/s."""
        return None if self.memory_gbs is None else self.memory_gbs * 1e9
