"""What one node's check tells, from the pod that measures to the command that judges."""

from pydantic import BaseModel, ConfigDict


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PairResult(_Result):
    """An all-reduce between two nodes, on the first device of each."""

    peer: str
    gbps: float
    """Bus bandwidth as nccl-tests defines it, Gbit/s: what the link carries in one direction."""


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
