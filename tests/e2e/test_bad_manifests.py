"""What only the operator or the trainer can judge: a clear word to the user, and nothing breaks."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from drakkar.constants import GROUP, VERSION
from support.lab import Lab, pretrain
from support.platform import Platform

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

MANIFESTS = sorted((Path(__file__).parents[1] / "bad_manifests" / "operator").glob("*.yaml"))


def said(status: dict[str, Any]) -> str:
    """All that a user can read in a job's status."""
    messages = [c["message"] for c in status.get("conditions", ()) if c["status"] != "Unknown"]
    return "\n".join([status.get("pendingReason", ""), *messages])


def test_each_bad_manifest_is_answered_and_the_operator_goes_on(
    lab: Lab, platform: Platform
) -> None:
    assert len(MANIFESTS) >= 10
    crashes = platform.crashes()
    expected: dict[str, str] = {}
    for file in MANIFESTS:
        text = file.read_text()
        manifest = yaml.safe_load(text)
        name = manifest["metadata"]["name"]
        expected[name] = text.splitlines()[0].removeprefix("# expect: ")
        plural = f"{manifest['kind'].lower()}s"
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{lab.namespace}/{plural}"
        assert lab.api.create(path, manifest)
    for name, words in expected.items():
        lab.until(lambda n=name, w=words: w in said(lab.status(n)), 60, f"{name} says {words!r}")
    for name in expected:
        running = [p for p in lab.pods(name) if p["status"].get("phase") == "Running"]
        assert running == [], f"{name} has running pods"
    assert platform.crashes() == crashes
    lab.submit("good", replicas=1, recipe=pretrain(steps=3, batchSize=8))
    lab.phase("good", "Complete")


def test_an_unwritable_checkpoint_path_fails_with_the_path(lab: Lab) -> None:
    lab.submit("first", replicas=1, recipe=pretrain(steps=1, batchSize=8))
    lab.phase("first", "Complete")
    locked = lab.folder("locked")
    locked.mkdir(mode=0o555)
    storage = {"persistentVolumeClaim": {"claimName": "runs", "subPath": "locked/run"}}
    lab.submit(
        "bad", replicas=1, recipe=pretrain(steps=1, batchSize=8), checkpoint={"storage": storage}
    )
    status = lab.phase("bad", "Failed")
    assert "/checkpoints/locked/run" in said(status)
    assert status["restartCount"] == 0
