"""An elastic job goes on with fewer replicas when its node is gone, and grows back when it returns."""

import itertools
import os

import pytest

from support.lab import Lab, Object, pretrain, sleeper

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # Two minutes, of which CI has few: how a gang shrinks and grows is decided in tests/unit.
    pytest.mark.skipif(not os.environ.get("DRAKKAR_LONG"), reason="set DRAKKAR_LONG=1 to run it"),
]

DEVICES: Object = {"resource": "drakkar.dev/gpu", "count": 8}
"""All of a node's."""
ENDLESS, MORE = 1_000_000, 20


def recipe(steps: int) -> Object:
    return pretrain(
        steps=steps, batchSize=24, minLearningRate=6e-3, evalEvery=ENDLESS, sampleTokens=0
    )


def whole_nodes(lab: Lab) -> int:
    """Nodes whose kubelet offers all devices."""
    nodes = lab.api.list("/api/v1/nodes")
    return sum(n["status"]["allocatable"].get(DEVICES["resource"]) == "8" for n in nodes)


def test_it_shrinks_and_grows_back(lab: Lab) -> None:
    # An elastic gang takes what there is: on a new cluster that may be two nodes at first.
    lab.until(lambda: whole_nodes(lab) == 4, 120, "four nodes offer their devices")
    lab.submit(
        "gpt",
        elastic={"min": 2, "max": 3},
        recipe=recipe(ENDLESS),
        accelerators=DEVICES,
        checkpoint={"everySteps": 10, "memoryEverySteps": 2},
    )
    lab.step("gpt", 12)
    placed = lab.status("gpt")["placement"]["nodes"]
    assert len(placed) == 3
    # The fourth node is another's: nobody takes the place of the one that is lost.
    lab.submit("other", runtime="plain", accelerators=DEVICES, template=sleeper(3600))
    lab.phase("other", "Running")
    operators = {pod["spec"]["nodeName"] for pod in lab.operator_pods()}
    victim = next(node for node in reversed(placed) if node not in operators)
    lab.cluster.node(victim).stop()
    try:
        lab.until(lambda: lab.status("gpt")["replicas"] == 2, 180, "the gang has two replicas")
        before = lab.history("gpt")[-1]["step"]
        lab.step("gpt", before + 10, seconds=180)
        assert victim not in lab.status("gpt")["placement"]["nodes"]
    finally:
        lab.cluster.node(victim).start()
    lab.until(lambda: lab.status("gpt")["replicas"] == 3, 180, "the gang has three again")
    grown = lab.until(
        lambda: [r for r in lab.status("gpt")["restarts"] if r["reason"] == "Grown"], 60, "why"
    )
    assert "room for 3 replicas in place of 2" in grown[0]["message"]
    before = lab.history("gpt")[-1]["step"]
    lab.step("gpt", before + 10, seconds=180)

    lab.suspend("gpt")
    total = lab.history("gpt")[-1]["step"] + MORE
    lab.api.patch(f"{lab.jobs}/gpt", {"spec": {"suspend": False, "recipe": recipe(total)}})
    status = lab.phase("gpt", "Complete", seconds=240)
    print(status["goodput"], status["restarts"])

    history = lab.history("gpt")
    epochs = [list(rows) for _, rows in itertools.groupby(history, key=lambda row: row["epoch"])]
    for before_, after in itertools.pairwise(epochs):
        # Growth and suspension save on the way out; a lost node costs the steps since a checkpoint.
        assert before_[-1]["step"] - 20 <= after[0]["step"] - 1 <= before_[-1]["step"]
    assert history[-1]["step"] == total
    assert history[-1]["loss"] < history[0]["loss"] - 0.5
