"""The variables that trainer processes get: torchrun's names, so that its scripts run unchanged."""

from collections.abc import Callable, Mapping

from drakkar.protocol import GangConfig
from drakkar_workers.agent.resources import device_slice
from drakkar_workers.channel import EPOCH_ENV, SOCKET_ENV

PORTS = 100
"""Rendezvous ports in turn: the store of a killed epoch may hold its port a little longer."""
DEVICES_ENV = "DRAKKAR_DEVICES"


def rendezvous_port(gang: GangConfig, epoch: int) -> int:
    """The port at which rank 0 offers its store in this epoch."""
    return gang.rendezvous_port + epoch % PORTS


def trainer_environments(
    gang: GangConfig,
    replica: int,
    epoch: int,
    master_address: str,
    socket_name: str,
    environ: Mapping[str, str],
    memory: Callable[[int], Mapping[str, str]] = lambda _rank: {},
) -> dict[int, dict[str, str]]:
    """Rank -> variables of each process of a replica.

    CUDA_VISIBLE_DEVICES is left alone: by torchrun's convention a process takes the device of its
    LOCAL_RANK among all of the pod's. DRAKKAR_DEVICES, a list without such a convention, is dealt out.
    """
    processes = gang.processes_per_replica
    environments = {}
    for local_rank in range(processes):
        rank = replica * processes + local_rank
        env = {
            "RANK": str(rank),
            "LOCAL_RANK": str(local_rank),
            "WORLD_SIZE": str(gang.world_size),
            "LOCAL_WORLD_SIZE": str(processes),
            "GROUP_RANK": str(replica),
            "MASTER_ADDR": master_address,
            "MASTER_PORT": str(rendezvous_port(gang, epoch)),
            EPOCH_ENV: str(epoch),
            SOCKET_ENV: socket_name,
            **memory(rank),
        }
        if environ.get(DEVICES_ENV) and processes > 1:
            env[DEVICES_ENV] = device_slice(environ[DEVICES_ENV], local_rank, processes)
        environments[rank] = env
    return environments
