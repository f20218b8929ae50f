"""A model that no rank has as a whole, and a gang that loses one of its parts."""

import pytest

from support.lab import Lab, pretrain, unigram_entropy

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

MESH = {"shard": 2, "tensor": 2}


def test_a_sharded_gang_outlives_the_loss_of_a_pod(lab: Lab) -> None:
    """FSDP x tensor parallel over four pods: a pod that is lost takes a quarter of the state along."""
    slow = {"batchSize": 32, "sequenceLength": 128}
    lab.submit("parts", replicas=4, recipe=pretrain(steps=60, parallel=MESH, **slow))
    lab.step("parts", 12)
    lab.delete_pod("parts-2")
    status = lab.phase("parts", "Complete", seconds=300)
    assert status["progress"]["step"] == 60
    assert status["progress"]["evalLoss"] < unigram_entropy()
    assert status["checkpoints"][-1]["step"] == 60
    assert [restart["reason"] for restart in status["restarts"]] == ["PodDeleted"]
    assert any(record["step"] == 60 for record in lab.history("parts"))
    published = lab.folder("parts") / "step-00000060"
    assert (published / "model.safetensors").is_file()
    assert len(list(published.glob("*.distcp"))) == 4
