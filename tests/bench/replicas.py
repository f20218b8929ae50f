"""What one more replica costs on a node that has one: memory, and time until it answers.

    python tests/bench/replicas.py [--runs 3]

On the local cluster with real kubelets, SmolLM2-135M-Instruct in bf16, with and without ``model.cache``
in turns. Time is from the second pod's creation to its first token, as a client sees it by way of the
API server's proxy. Memory is what the pod's processes share with nobody (Private_* of smaps_rollup);
the pages of a file that another process maps, too, are not in it.
"""

import argparse
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from drakkar.constants import LEVEL_HOST
from drakkar.local import Cluster, ClusterError
from drakkar.local.install import install
from support.lab import Lab
from support.platform import Platform
from support.processes import in_pod
from support.service_lab import ServiceLab
from support.smollm import NAME
from support.smollm import model as smollm

MIB = 1 << 20
BODY = {"model": "gpt", "prompt": "And God said", "max_tokens": 1}


def private(uid):
    """Bytes that a pod's processes have for themselves."""
    total = 0
    for pid in in_pod(uid):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_"):
                total += int(line.split()[1]) * 1024
    return total


def answered(services, pod):
    try:
        services.lab.api.post(f"{services.lab.pods_path}/{pod}:8000/proxy/v1/completions", BODY)
    except ClusterError:
        return False
    return True


def measure(services, node, cache):
    """Seconds to the first token and private bytes of the second replica."""
    model = {"pvc": {"claimName": "runs", "path": NAME}}
    services.submit(
        "gpt",
        model=model | ({"cache": {"claimName": "runs", "path": "cache"}} if cache else {}),
        runtime={"args": ["--dtype=bfloat16", "--cache-gib=0.1"]},
        template={"spec": {"nodeSelector": {LEVEL_HOST: node}}},
        rollout={"drainSeconds": 1},
        replicas=1,
    )
    services.ready("gpt")
    services.change("gpt", replicas=2)
    services.lab.until(lambda: len(services.servers("gpt")) == 2, 60, "the second pod is there")
    began = time.perf_counter()
    services.lab.until(lambda: answered(services, "gpt-serve-1"), 240, "it answers")
    took = time.perf_counter() - began
    assert answered(services, "gpt-serve-0")
    pod = services.lab.pod("gpt-serve-1")
    found = private(pod["metadata"]["uid"])
    services.lab.api.delete(f"{services.services}/gpt")
    services.lab.until(lambda: not services.lab.api.list(services.lab.pods_path), 120, "it is gone")
    return took, found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    cluster = Cluster.load_or_up(nodes=4)
    install(cluster.kubeconfig)
    Platform(cluster).wait_ready()
    lab = Lab(cluster, "bench-replicas")
    lab.open()
    try:
        services = ServiceLab(lab)
        at = shutil.copytree(smollm(), lab.folder(NAME))
        for path in (at, *at.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        free = lab.free_cpu()
        node = max(free, key=lambda name: free[name])
        found = {"without a cache": [], "with one": []}
        for _ in range(runs):
            for name, rows in found.items():
                rows.append(measure(services, node, name == "with one"))
                print(f"{name:16} {rows[-1][0]:5.1f} s  {rows[-1][1] / MIB:5.0f} MiB", flush=True)
        print(f"medians of {runs}, load of the last minute {os.getloadavg()[0]:.1f}")
        for name, rows in found.items():
            took, own = (statistics.median(column) for column in zip(*rows, strict=True))
            print(f"{name:16} {took:5.1f} s  {own / MIB:5.0f} MiB")
    finally:
        lab.close()


if __name__ == "__main__":
    main()
