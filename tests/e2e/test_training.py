"""The main job: a gang trains on real text and completes."""

import pytest

from support.lab import Lab, pretrain, unigram_entropy

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

MARGIN = 0.5
"""Nats per byte by which the held-out loss must beat byte frequencies."""


def test_four_ranks_learn_more_than_letter_frequencies(lab: Lab) -> None:
    lab.submit("gpt", replicas=4, recipe=pretrain(steps=120))
    status = lab.phase("gpt", "Complete", seconds=240)
    progress = status["progress"]
    assert progress["step"] == 120
    assert progress["evalLoss"] < unigram_entropy() - MARGIN
    assert progress["sample"]
    assert 0 < progress["goodput"] <= 1
    assert {c["type"]: c["status"] for c in status["conditions"]}["Complete"] == "True"
    assert status["checkpoints"][-1]["step"] == 120
    assert status["restarts"] == []
    published = lab.folder("gpt") / "step-00000120"
    assert (published / "model.safetensors").is_file()
    steps = [record["step"] for record in lab.history("gpt")]
    assert steps == sorted(set(steps))


def test_ranks_are_neighbours_on_the_fabric(lab: Lab) -> None:
    """Two replicas that need one rack get the hosts of one rack."""
    lab.submit(
        "pair",
        replicas=2,
        topology={"required": "rack"},
        recipe=pretrain(steps=5),
        resources={"requests": {"cpu": "1200m", "memory": "256Mi"}},
    )
    status = lab.phase("pair", "Complete")
    labels = {
        node["metadata"]["name"]: node["metadata"]["labels"]["topology.drakkar.dev/rack"]
        for node in lab.api.list("/api/v1/nodes")
    }
    nodes = status["placement"]["nodes"]
    assert len(set(nodes)) == 2
    assert len({labels[node] for node in nodes}) == 1
    assert status["placement"]["level"] == "rack"
