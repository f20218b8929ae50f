"""What one node's check tells, from the pod that measures to the command that judges."""

from pydantic import BaseModel, ConfigDict


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PairResult(_Result):
    """An exchange between two nodes, each sending while it receives."""

    peer: str
    gbps: float
    """Bandwidth in one direction, Gbit/s."""


class NodeResult(_Result):
    """One node. Short: it travels as a termination message (4096 bytes)."""

    node: str
    accelerator: str
    """As PyTorch calls it: cuda, npu, xpu, ..., or cpu."""
    teraflops: tuple[float, ...] = ()
    """Of a matrix product on each device, 1e12 floating point operations per second."""
    pairs: tuple[PairResult, ...] = ()
    error: str = ""
    """Why it could not be measured."""
