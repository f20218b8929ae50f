"""Something is killed: how long until the next step? The agent against torchrun.

Both run the same script, ``recovery_script.py``, with two ranks over gloo on this machine; the agent
also runs Drakkar's own trainer, with checkpoints in memory. One rank gets SIGKILL in the middle between
two checkpoints on storage, and the clock runs until the next step that is done.

``pod``: two agents, of which one is killed with all that is below it and started anew, as when a pod is
replaced; its rank takes its state from the other's memory. ``gang``: both are, as when a whole gang is
created again; storage is what is left. What Kubernetes needs to make a pod is not in it. Run it with
nothing else on the machine::

    python tests/bench/recovery.py [--kills 5] [--rounds 2] [--only agent,torchrun,trainer,pod,gang]
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from drakkar.protocol import GangConfig

EVERY = 20
PATIENCE_SECONDS = 60
WORDS = ("the", "of", "and", "to", "in", "that", "it", "is", "was", "for", "on", "are", "as")


def gang_config(folder: Path, port: int, replicas: int = 1) -> GangConfig:
    """Two ranks in one pod, as torchrun has them on one node, or in two."""
    return GangConfig(
        job="bench",
        namespace="default",
        uid="bench",
        replicas=replicas,
        processes_per_replica=2 // replicas,
        coordinator="127.0.0.1",
        agent_port=port,
        rendezvous_port=port + 1,
        recipe="pretrain",
        recipe_config={
            "model": {"layers": 2, "hidden": 64, "heads": 2},
            "data": {"source": str(folder / "text.txt")},
            "steps": 100_000,
            "warmupSteps": 0,
            "sequenceLength": 64,
            "batchSize": 8,
            "evalEvery": 100_000,
        },
        checkpoint_dir=str(folder / "checkpoints" / "bench"),
        checkpoint_root=str(folder / "checkpoints"),
        checkpoint_every=EVERY,
        memory_every=1,
        in_place_restarts=1000,
    )


SCRIPT = Path(__file__).with_name("recovery_script.py")


def command(name: str, folder: Path) -> list[str]:
    """What runs the ranks: an entry point of training pods, or torchrun with as many restarts."""
    script = [str(SCRIPT), str(folder), str(EVERY)]
    agent = [sys.executable, "-m", "drakkar_workers.agent"]
    match name:
        case "agent":
            return [*agent, "--", sys.executable, *script]
        case "trainer" | "pod" | "gang":
            return agent
        case _:
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            return [*torchrun, "--nproc-per-node=2", "--max-restarts=1000", *script]


def measure(name: str, kills: int) -> list[float]:
    """Seconds from each kill to the first step done again; infinite where there was none."""
    seconds: list[float] = []
    while len(seconds) < kills:
        seconds += session(name, kills - len(seconds))
    return seconds


def session(name: str, kills: int) -> list[float]:
    """Kill ranks of one start, until it does not come back."""
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="drakkar-bench-") as directory:
        folder = Path(directory)
        (folder / "checkpoints").mkdir()
        rng = random.Random(7)
        text = " ".join(rng.choice(WORDS) for _ in range(40_000))
        (folder / "text.txt").write_text(text)
        pods = 2 if name in ("pod", "gang") else 1
        config = gang_config(folder, random.randrange(20_000, 30_000), pods)
        env = {
            **os.environ,
            "DRAKKAR_GANG": config.model_dump_json(by_alias=True),
            "DRAKKAR_REPLICA_INDEX": "0",
            "DRAKKAR_POD_NAME": "bench-0",
            "DRAKKAR_POD_UID": "bench",
            "DRAKKAR_NODE_NAME": "here",
            "DRAKKAR_AGENT_BIND": "127.0.0.1",
            "DRAKKAR_TERMINATION_LOG": str(folder / "termination"),
            "DRAKKAR_CACHE": str(folder / "cache"),
            "DRAKKAR_WARM": "1",
            "OMP_NUM_THREADS": "1",
        }
        starts = itertools.count()

        def start(replica: int) -> subprocess.Popen[bytes]:
            # A pod that replaces another has another UID and address.
            number = next(starts)
            own = {
                "DRAKKAR_REPLICA_INDEX": str(replica),
                "DRAKKAR_POD_UID": f"pod-{number}",
                "DRAKKAR_NODE_NAME": f"node-{replica}",
                "DRAKKAR_AGENT_BIND": f"127.0.0.{1 if replica == 0 else 2 + number}",
            }
            with (folder / "log").open("ab") as log:
                return subprocess.Popen(
                    command(name, folder),
                    env={**env, **own},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                )

        runners = [start(replica) for replica in range(pods)]
        runner = runners[0]
        metrics = folder / "steps.jsonl"
        if name not in ("agent", "torchrun"):
            metrics = Path(config.checkpoint_dir or "") / "metrics.jsonl"
        try:
            reached = 0
            for _ in range(kills):
                # Steps that were not done before are progress: without it the agent would back off.
                wait_for(metrics, runner, lambda e, r=reached: e["step"] > r)
                # Looked up now, so that the kill comes right after the step that is seen.
                victim = max(trainers(runner.pid))
                reached = middle_of_interval(metrics, runner)
                epoch = newest_epoch(metrics)
                killed = time.time()
                if pods == 1:
                    os.kill(victim, signal.SIGKILL)
                if name == "pod":
                    kill_tree(runners[1])
                    runners[1] = start(1)
                dead = killed
                if name == "gang":
                    for old in runners:
                        kill_tree(old)
                    # Epochs start anew; but nobody is left who could still write a step.
                    dead, epoch = time.time(), 0.0
                    runners = [start(replica) for replica in range(pods)]
                    runner = runners[0]
                again = wait_for(
                    metrics,
                    runner,
                    lambda e, r=reached, k=dead, n=epoch: (
                        e["time"] > k and (e["epoch"] != n if n is not None else e["step"] <= r)
                    ),
                )
                seconds.append(again["time"] - killed if again else math.inf)
                print(f"{name}: {seconds[-1]:.3f} s", flush=True)
                if again is None:
                    print((folder / "log").read_text()[-2000:], file=sys.stderr)
                    break
        finally:
            for old in runners:
                kill_tree(old)
    return seconds


def kill_tree(runner: subprocess.Popen[bytes]) -> None:
    """End a process and all below it at once."""
    for pid in [*descendants(runner.pid), runner.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    runner.wait()


def newest_epoch(metrics: Path) -> float | None:
    """Of the newest step; None where the script tells no epochs."""
    lines = metrics.read_text().splitlines()
    return json.loads(lines[-1]).get("epoch") if lines else None


def middle_of_interval(metrics: Path, runner: subprocess.Popen[bytes]) -> int:
    """Wait until the training is halfway to its next checkpoint; the step it is at."""
    began = time.time()
    entry = wait_for(
        metrics, runner, lambda e: e["time"] > began and e["step"] % EVERY == EVERY // 2
    )
    if entry is None:
        raise SystemExit(f"no steps within {PATIENCE_SECONDS} s")
    return int(entry["step"])


def wait_for(
    metrics: Path, runner: subprocess.Popen[bytes], wanted: Callable[[dict[str, float]], bool]
) -> dict[str, float] | None:
    """The first newly written step that is as wanted; None if there is none for long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and runner.poll() is None:
        lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
        for line in reversed([line for line in lines[-200:] if line.endswith("\n")]):
            entry = json.loads(line)
            if entry["step"] and wanted(entry):
                return dict(entry)
        time.sleep(0.01)
    return None


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, queue = [], [pid]
    while queue:
        above = queue.pop()
        below = [child for child, parent in parents.items() if parent == above]
        found += below
        queue += below
    return found


def trainers(runner: int) -> list[int]:
    """The processes that are ranks: the lowest ones, whichever way they were started."""
    found = []
    for pid in descendants(runner):
        children = set(descendants(pid))
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if not children and (b"forkserver" in command or SCRIPT.name.encode() in command):
            found.append(pid)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5, help="in each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="agent,torchrun,trainer,pod,gang")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    results: dict[str, list[float]] = {name: [] for name in names}
    # In turns, so that what else happens on the machine does not fall on one of them alone.
    for _ in range(arguments.rounds):
        for name in names:
            results[name] += measure(name, arguments.kills)
    medians = {}
    print(f"{'killed -> next step':<22}{'median s':>10}{'best s':>10}{'worst s':>10}")
    for name, seconds in results.items():
        lost = seconds.count(math.inf)
        seconds = [value for value in seconds if value < math.inf] or [math.inf]
        medians[name] = middle = statistics.median(seconds)
        note = f"   and {lost} not within {PATIENCE_SECONDS} s" if lost else ""
        print(f"{name:<22}{middle:>10.3f}{min(seconds):>10.3f}{max(seconds):>10.3f}{note}")
    if {"agent", "torchrun"} <= results.keys():
        ratio = medians["torchrun"] / medians["agent"]
        print(f"the agent is {ratio:.0f} times as fast, of the kills that were recovered from")


if __name__ == "__main__":
    main()
