"""The chart under a running job: upgraded, tested, rolled back, removed, installed again."""

import subprocess
from pathlib import Path

import pytest
import yaml

from drakkar.constants import GROUP
from drakkar.local import Cluster
from drakkar.local.install import DEFINITIONS, NAMESPACE, RELEASE, install, local_settings
from support.chart import CHART
from support.lab import Lab, pretrain
from support.platform import Platform

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

ROOT = CHART.parents[1]
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/drakkar-operator"


def previous(folder: Path) -> Path:
    """The chart as it was before it last changed, as version 0.0.9.

    Where the checkout has no history it is this chart under that version.
    """
    commits = subprocess.run(
        ["git", "log", "--format=%H", "-2", "--", "charts/drakkar"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    archive = folder / "chart.tar"
    command = (
        ["git", "archive", "--output", str(archive), commits[-1], "charts/drakkar"]
        if len(commits) == 2
        else ["tar", "-cf", str(archive), "charts/drakkar"]
    )
    subprocess.run(command, cwd=ROOT, check=True)
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
    chart = folder / "charts" / "drakkar"
    described = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump({**described, "version": "0.0.9"}))
    return chart


def test_upgrade_rollback_and_removal_leave_a_job_alone(
    cluster: Cluster, platform: Platform, lab: Lab, tmp_path: Path
) -> None:
    where = ["--kubeconfig", str(cluster.kubeconfig), "--namespace", NAMESPACE]

    def helm(*arguments: str | Path) -> str:
        command = [cluster.program("helm"), *arguments, *where]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{lab.describe()}"
        return done.stdout

    def version() -> str:
        labels: dict[str, str] = lab.api.get(DEPLOYMENT)["metadata"]["labels"]
        return labels["helm.sh/chart"]

    def goes_on() -> None:
        """It trains, is told about, and has never lost a pod."""
        platform.wait_ready()
        lab.step("gpt", lab.history("gpt")[-1]["step"] + 1)
        assert {pod["metadata"]["uid"] for pod in lab.pods("gpt")} == pods
        assert lab.status("gpt")["restarts"] == []

    settings = [f"--set-string={name}={value}" for name, value in local_settings(ROOT).items()]
    chart = previous(tmp_path)
    local = chart / "values-local.yaml"
    helm("upgrade", RELEASE, chart, "--values", local, *settings, "--wait", "--timeout", "110s")
    lab.submit("gpt", replicas=2, recipe=pretrain(steps=100_000))
    lab.step("gpt", 3)
    pods = {pod["metadata"]["uid"] for pod in lab.pods("gpt")}
    assert version() == "drakkar-0.0.9"
    try:
        install(cluster.kubeconfig)
        assert version() != "drakkar-0.0.9"
        goes_on()
        assert "Succeeded" in helm("test", RELEASE)

        helm("rollback", RELEASE, "--wait", "--timeout", "110s")
        assert version() == "drakkar-0.0.9"
        goes_on()

        helm("uninstall", RELEASE)
        lab.until(lambda: not platform.pods(), 120, "the operator is gone")
        assert lab.api.find(DEPLOYMENT) is None
        assert lab.api.find(f"{DEFINITIONS}/trainingjobs.{GROUP}") is not None
        alone = lab.history("gpt")[-1]["step"]
        lab.until(lambda: lab.history("gpt")[-1]["step"] > alone + 2, 120, "it trains alone")
    finally:
        install(cluster.kubeconfig)
    goes_on()
    lab.delete("gpt")
