"""Plans and snapshots on a real cluster: through the API server's proxy, guarded by RBAC."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from drakkar.constants import API_VERSION
from drakkar.local.install import NAMESPACE
from support.lab import PLAIN, Lab, Object, sleeper

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

DRAKKAR = str(Path(sys.executable).with_name("drakkar"))


def drakkar(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command against the lab's cluster."""
    environment = {**os.environ, "KUBECONFIG": str(lab.cluster.kubeconfig)}
    command = [DRAKKAR, *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def manifest(lab: Lab, folder: Path, name: str, cpu: str) -> str:
    """A file with a job of two replicas."""
    path = folder / f"{name}.yaml"
    job = {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": lab.namespace},
        "spec": {"replicas": 2, "template": sleeper(1, cpu=cpu), **PLAIN},
    }
    path.write_text(yaml.safe_dump(job))
    return str(path)


def may(lab: Lab, user: str, verb: str, service: str) -> bool:
    """Whether RBAC lets a user reach a port of the operator's Service."""
    attributes = {
        "namespace": NAMESPACE,
        "verb": verb,
        "resource": "services",
        "subresource": "proxy",
        "name": service,
    }
    review: Object = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }
    response = lab.api._client.post(
        "/apis/authorization.k8s.io/v1/subjectaccessreviews", json=review
    )
    return bool(response.json()["status"]["allowed"])


def test_a_plan_comes_true_and_the_decision_can_be_repeated(lab: Lab, tmp_path: Path) -> None:
    file = manifest(lab, tmp_path, "small", "50m")
    planned = drakkar(lab, "plan", file, "-o", "json")
    assert planned.returncode == 0, planned.stderr
    (plan,) = json.loads(planned.stdout)["jobs"]
    assert plan["outcome"] == "starts"
    assert len(plan["placement"]["nodes"]) == 2
    assert lab.pods("small") == [], "a plan changes nothing"
    assert drakkar(lab, "run", file).returncode == 0
    status = lab.phase("small", "Running", "Complete")
    assert len(status["placement"]["nodes"]) == 2

    snapshot = drakkar(lab, "debug", "snapshot", "--job", "small", "-n", lab.namespace)
    assert snapshot.returncode == 0, snapshot.stderr
    path = tmp_path / "snapshot.json"
    path.write_text(snapshot.stdout)
    again = drakkar(lab, "debug", "replay", str(path))
    assert again.returncode == 0, again.stderr
    assert f"{lab.namespace}/small: placed" in again.stdout


def test_a_plan_for_more_than_there_is_says_what_is_missing(lab: Lab, tmp_path: Path) -> None:
    planned = drakkar(lab, "plan", manifest(lab, tmp_path, "large", "4k"))
    assert planned.returncode == 0, planned.stderr
    assert "would wait" in planned.stdout
    assert "needs 4000 cpu on one node" in planned.stdout


def test_those_who_view_may_plan_and_not_debug(lab: Lab) -> None:
    binding: Object = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": lab.namespace},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "view",
        },
        "subjects": [{"kind": "User", "name": "viewer", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    lab.api.create(path, binding)
    try:
        # Controllers add the chart's rules to the role view.
        lab.until(lambda: may(lab, "viewer", "create", "drakkar-operator:plan"), 30, "may plan")
        assert not may(lab, "viewer", "get", "drakkar-operator:debug")
        assert not may(lab, "viewer", "create", "drakkar-operator:debug")
        assert not may(lab, "viewer", "get", "drakkar-operator:http")
        assert not may(lab, "nobody", "create", "drakkar-operator:plan")
    finally:
        lab.api.delete(f"{path}/{lab.namespace}")
