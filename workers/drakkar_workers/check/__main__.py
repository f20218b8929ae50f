"""``python -m drakkar_workers.check``: one rank of a check, made by ``drakkar node check``.

Rank 0 keeps the store where all ranks meet. Who has not come by the deadline is left out. The result
is written where the kubelet takes a container's last words from.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from drakkar.check.pairs import rounds
from drakkar.check.pods import PORT
from drakkar.check.results import NodeResult, PairResult
from drakkar_workers.check.measure import allreduce_gbps, devices, matmul_teraflops

TERMINATION_LOG = Path("/dev/termination-log")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says."""

    node: str
    rank: int
    nodes: tuple[str, ...]
    """All nodes, by rank."""
    master: str
    """Address of rank 0."""
    rounds: int
    meet_seconds: float
    """How long rank 0 waits for the others, and each for the next step."""
    in_turn: bool
    """Compute one after the other."""


def settings(environment: Mapping[str, str]) -> Settings:
    """Read the environment. Raises KeyError or ValueError."""
    nodes = tuple(environment["DRAKKAR_CHECK_NODES"].split(","))
    rank = int(environment["DRAKKAR_CHECK_RANK"])
    return Settings(
        node=nodes[rank],
        rank=rank,
        nodes=nodes,
        master=environment["DRAKKAR_CHECK_MASTER"],
        rounds=int(environment["DRAKKAR_CHECK_ROUNDS"]),
        meet_seconds=float(environment["DRAKKAR_CHECK_MEET_SECONDS"]),
        in_turn=environment["DRAKKAR_CHECK_IN_TURN"] == "1",
    )


def check(given: Settings) -> NodeResult:
    """Measure this node, and its links to those that it is paired with."""
    torch.set_num_threads(1)
    found = devices()
    kind = found[0].type
    teraflops: tuple[float, ...] = ()
    try:
        patience = timedelta(seconds=given.meet_seconds)
        store = TCPStore(
            given.master, PORT, is_master=given.rank == 0, wait_for_workers=False, timeout=patience
        )
        members = _meet(store, given)
        print(f"met {len(members)} of {len(given.nodes)} nodes", flush=True)
        with _turn(store, given, members):
            teraflops = tuple(round(matmul_teraflops(device), 5) for device in found)
        pairs = _pairs(store, given, members, found[0]) if len(members) > 1 else ()
        # Rank 0 keeps the store: it leaves last.
        store.set(f"done-{given.rank}", "")
        if given.rank == 0:
            store.wait([f"done-{rank}" for rank in members])
    except (dist.DistError, RuntimeError) as error:
        said = f"not all could be measured: {str(error).splitlines()[0][:300]}"
        return NodeResult(node=given.node, accelerator=kind, teraflops=teraflops, error=said)
    return NodeResult(node=given.node, accelerator=kind, teraflops=teraflops, pairs=pairs)


@contextmanager
def _turn(store: Store, given: Settings, members: Sequence[int]) -> Iterator[None]:
    """Where nodes share a machine they compute one after the other, else all at once."""
    before = members[: members.index(given.rank)]
    if given.in_turn and before:
        store.wait([f"computed-{before[-1]}"])
    yield
    store.set(f"computed-{given.rank}", "")


def _pairs(
    store: Store, given: Settings, members: Sequence[int], device: torch.device
) -> tuple[PairResult, ...]:
    """The links to the peers of each round."""
    # The pairs of a round must not meet a node that still computes.
    store.wait([f"computed-{rank}" for rank in members])
    dist.init_process_group(
        dist.get_default_backend_for_device(device),
        store=PrefixStore("group", store),
        rank=members.index(given.rank),
        world_size=len(members),
        timeout=timedelta(seconds=given.meet_seconds),
    )
    results = []
    for pairs in rounds(range(len(members)), given.rounds):
        for pair in pairs:
            if dist.get_rank() in pair:
                (peer,) = set(pair) - {dist.get_rank()}
                # Made by the two alone: the others need not come.
                group = dist.new_group(sorted(pair), use_local_synchronization=True)
                assert isinstance(group, dist.ProcessGroup)
                gbps = allreduce_gbps(device, group)
                dist.destroy_process_group(group)
                name = given.nodes[members[peer]]
                results.append(PairResult(peer=name, gbps=round(gbps, 4)))
        # The next round's pairs do not begin while this one's are at it.
        dist.barrier()
    dist.destroy_process_group()
    return tuple(results)


def _meet(store: Store, given: Settings) -> list[int]:
    """Ranks that take part, the same list for all of them."""
    store.set(f"here-{given.rank}", "")
    if given.rank == 0:
        everybody = range(len(given.nodes))
        with suppress(dist.DistStoreError):
            store.wait([f"here-{rank}" for rank in everybody])
        came = [rank for rank in everybody if store.check([f"here-{rank}"])]
        store.set("members", ",".join(map(str, came)))
    members = [int(rank) for rank in store.get("members").decode().split(",")]
    if given.rank not in members:
        raise RuntimeError("it came too late: the others had begun")
    return members


def main() -> None:
    """Entry point."""
    result = check(settings(os.environ)).model_dump_json()
    print(result, flush=True)
    TERMINATION_LOG.write_text(result)
    # Nothing is left to tidy up, which PyTorch takes its time for.
    os._exit(0)


if __name__ == "__main__":
    main()
