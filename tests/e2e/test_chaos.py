"""Random faults over one job: it completes with the weights of a run that nothing happened to.

One fault of each kind that no other test here makes; the long run has 30 of all kinds, in an order that
the seed gives, and says what each took::

    DRAKKAR_CHAOS_FAULTS=30 DRAKKAR_CHAOS_SEED=7 pytest -s tests/e2e/test_chaos.py

How many steps a machine makes while faults are found differs. So the job has steps without end and
a learning rate that does not depend on their number; after the last fault it is suspended, told to
make some steps more, and resumed. The undisturbed run then has as many steps.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from support.chaos import KINDS, Chaos
from support.disk import Disk
from support.lab import Lab, Object, pretrain
from support.processes import in_pod

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

FAULTS = int(os.environ.get("DRAKKAR_CHAOS_FAULTS", "0"))
"""Of all kinds; 0: one of each in SHORT."""
SHORT = [kind for kind in KINDS if kind not in ("pod deleted", "node stopped", "device broken")]
SEED = int(os.environ.get("DRAKKAR_CHAOS_SEED", "7"))
EVERY, MORE, ENDLESS = 10, 13, 1_000_000
PARTS = ("queue", "start", "productive", "compile", "checkpoint", "lost", "recovery", "other")


def recipe(steps: int) -> Object:
    return pretrain(
        steps=steps,
        batchSize=24,
        learningRate=1e-3,
        minLearningRate=1e-3,
        evalEvery=ENDLESS,
        evalBatches=1,
        sampleTokens=0,
    )


def job(steps: int) -> Object:
    return {
        "replicas": 3,
        "recipe": recipe(steps),
        # A node has eight: one pod per node, so that a cut between nodes is one between ranks.
        "accelerators": {"resource": "drakkar.dev/gpu", "count": 8},
        "checkpoint": {"everySteps": EVERY, "memoryEverySteps": 2},
        "faultTolerance": {
            "maxRestarts": 1000,
            "inPlaceRestarts": 1000,
            "backoffSeconds": 0,
            "hangTimeoutSeconds": 8,
        },
    }


def weights(folder: Path, step: int) -> dict[str, bytes]:
    final = folder / f"step-{step:08d}" / "model.safetensors"
    return {name: value.tobytes() for name, value in load_file(final).items()}


@pytest.fixture
def disk(lab: Lab, tmp_path: Path) -> Iterator[Disk]:
    names = [node["metadata"]["name"] for node in lab.api.list("/api/v1/nodes")]
    claim = f"/api/v1/namespaces/{lab.namespace}/persistentvolumeclaims/runs"
    lab.until(lambda: lab.api.get(claim)["spec"].get("volumeName"), 60, "the claim has a volume")
    found = Disk(lab, names, tmp_path)
    try:
        found.mount()
        yield found
    finally:
        for name in ("chaos", "calm"):
            lab.delete(name)
        found.unmount()
        for name in names:
            lab.cluster.node(name).repair_devices()


def test_a_job_outlives_everything(lab: Lab, disk: Disk) -> None:
    lab.submit("chaos", **job(ENDLESS))
    chaos = Chaos(lab, disk, "chaos", random.Random(SEED))
    chaos.until_beyond(EVERY + 2, "a first checkpoint")
    seen = set(chaos.uids())
    plan = chaos.plan(FAULTS) if FAULTS else chaos.plan(0, SHORT)
    print(f"seed {SEED}, {len(plan)} faults")
    for kind in plan:
        chaos.strike(kind)
        seen.update(chaos.uids())
        print(f"{kind}: {chaos.done[-1][1]:.1f} s", flush=True)
    for pod in chaos.running(3):
        # No rank of an earlier epoch is left beside the one that trains.
        ranks = lab.trainers(pod["metadata"]["name"])
        assert len(ranks) == 1, f"{pod['metadata']['name']} has ranks {ranks}"

    lab.suspend("chaos")
    total = lab.history("chaos")[-1]["step"] + MORE
    lab.api.patch(f"{lab.jobs}/chaos", {"spec": {"suspend": False, "recipe": recipe(total)}})
    status = lab.phase("chaos", "Complete", seconds=300)
    disturbed = weights(lab.folder("chaos"), total)

    goodput = status["goodput"]
    spent = {part: goodput.get(f"{part}Seconds", 0) for part in PARTS}
    print(
        f"{total} steps; goodput {goodput['ratio']:.0%} of {goodput['wallSeconds']:.0f} s: {spent}"
    )
    for restart in status["restarts"]:
        print(restart)
    assert sum(spent.values()) == pytest.approx(goodput["wallSeconds"], abs=1)
    assert spent["productive"] > 0 and spent["recovery"] > 0
    assert status["restarts"]
    assert all(r["reason"] and r["message"] and r["scope"] for r in status["restarts"])
    assert any(restart.get("secondsLost") for restart in status["restarts"])

    # Nothing leaks: no file of a save that was cut off, no process (and so no memory) of any pod.
    assert list(lab.folder("chaos").glob(".tmp*")) == []
    seen.update(chaos.uids())
    lab.delete("chaos")
    lab.until(lambda: not any(in_pod(uid) for uid in seen), 60, "all processes are gone")

    lab.submit("calm", **job(total))
    lab.phase("calm", "Complete", seconds=600)
    assert weights(lab.folder("calm"), total) == disturbed
