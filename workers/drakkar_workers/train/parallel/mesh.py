"""The ranks as a mesh: replicas x shard x context x expert x tensor, the last of them next to each
other.

Experts take ranks of a shard: ``Layout.shard`` counts both.
"""

import contextlib
from dataclasses import dataclass

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor.parallel import loss_parallel

from drakkar.v1alpha1.recipes import ParallelConfig
from drakkar_workers.train.world import World

REPLICATE, SHARD, CONTEXT, EXPERT, TENSOR = "replicate", "shard", "context", "expert", "tensor"
STATE = "state"
"""shard x context x expert: ranks of one sequence share their state like those of a shard."""
OUTER = "outer"
"""shard x context: ranks that share the state of the same experts."""
EXPERTS = "experts"
"""expert x tensor: ranks that share the experts of each layer."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Degrees of the mesh, and this rank's place in it."""

    replicate: int
    shard: int
    context: int
    expert: int
    tensor: int
    rank: int
    mesh: DeviceMesh | None
    """None where every rank has the whole model and sequences of its own."""

    @property
    def data(self) -> int:
        """Ranks with data of their own."""
        return self.replicate * self.shard

    @property
    def data_rank(self) -> int:
        """Which of them this rank is, or belongs to."""
        inner = self.expert * self.tensor
        outer = self.rank // (self.context * inner)
        return outer * self.expert + self.rank % inner // self.tensor

    @property
    def reduced(self) -> int:
        """Ranks over which gradients are averaged."""
        return self.data * self.context

    @property
    def sharded(self) -> bool:
        """Whether a rank has but a part of the state."""
        return self.shard > 1 or self.tensor > 1

    def loss_context(self) -> contextlib.AbstractContextManager[None]:
        """Around forward and backward: the loss of logits that are spread over the vocabulary."""
        if self.tensor == 1:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[None] = loss_parallel()
        return context

    def about(self) -> str:
        """The degrees above one, for people."""
        names = (REPLICATE, SHARD, CONTEXT, EXPERT, TENSOR)
        degrees = (self.replicate, self.shard, self.context, self.expert, self.tensor)
        return (
            " x ".join(f"{n} {d}" for n, d in zip(names, degrees, strict=True) if d > 1) or "alone"
        )


def lay_out(config: ParallelConfig, world: World) -> Layout:
    """The mesh of a world for which ``config`` was checked; every rank calls it."""
    data = config.data_ranks(world.size)
    shard = config.shard or data
    sizes = (data // shard, shard // config.expert, config.context, config.expert, config.tensor)
    mesh = None
    if shard > 1 or config.context > 1 or config.tensor > 1:
        mesh = init_device_mesh(
            world.device.type, sizes, mesh_dim_names=(REPLICATE, SHARD, CONTEXT, EXPERT, TENSOR)
        )
    return Layout(
        replicate=data // shard,
        shard=shard,
        context=config.context,
        expert=config.expert,
        tensor=config.tensor,
        rank=world.rank,
        mesh=mesh,
    )
