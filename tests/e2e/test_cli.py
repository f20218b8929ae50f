"""What users do at the command line, on the real cluster."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from support.lab import Lab, Object, sleeper

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
DRAKKAR = str(Path(sys.executable).with_name("drakkar"))


class Shell:
    """The command ``drakkar`` in the lab's namespace."""

    def __init__(self, lab: Lab) -> None:
        self._namespace = lab.namespace
        self._environment = {**os.environ, "KUBECONFIG": str(lab.cluster.kubeconfig)}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [DRAKKAR, *arguments, "-n", self._namespace],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, seconds: float = 180) -> tuple[int, str, str]:
        """Run a command: (exit code, output, errors)."""
        process = self.start(*arguments)
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        out, err = process.communicate()
        timer.cancel()
        return process.returncode, out, err


@pytest.fixture
def shell(lab: Lab) -> Shell:
    return Shell(lab)


def plain(command: str, **spec: object) -> Object:
    """The spec of one container that runs a shell command."""
    pod = sleeper(0)
    pod["spec"]["containers"][0]["command"] = ["/bin/sh", "-c", command]
    return {"runtime": "plain", "template": pod, **spec}


def test_run_watch_and_logs_of_a_job_that_completes(shell: Shell) -> None:
    code, out, err = shell.run("run", str(ROOT / "examples/plain.yaml"), "--watch")
    assert code == 0, err
    assert "placed in" in out
    assert out.rstrip().splitlines()[-1].endswith("Complete")
    code, out, _ = shell.run("logs", "plain")
    assert code == 0
    assert {line.split(";")[0] for line in out.splitlines()} == {
        f"[{rank}] rank {rank} of 3" for rank in range(3)
    }
    _, out, _ = shell.run("logs", "plain", "--rank", "1")
    assert out.startswith("rank 1 of 3")


def test_run_watch_of_a_job_that_fails(shell: Shell, tmp_path: Path) -> None:
    manifest = tmp_path / "bad.yaml"
    manifest.write_text(
        "apiVersion: drakkar.dev/v1alpha1\nkind: TrainingJob\nmetadata: {name: bad}\n"
        "spec: {runtime: plain, faultTolerance: {maxRestarts: 0}, template: {spec: "
        "{terminationGracePeriodSeconds: 5, containers: [{name: trainer, command: [/bin/sh, -c, "
        "exit 3], resources: {requests: {cpu: 100m, memory: 16Mi}}}]}}}\n"
    )
    code, _, err = shell.run("run", str(manifest), "--watch")
    assert code == 1
    assert "bad failed" in err
    _, out, _ = shell.run("describe", "bad")
    assert "Failed" in out.splitlines()[0]
    assert "exit code 3" in out, out


def test_describe_tells_why_a_job_waits(lab: Lab, shell: Shell) -> None:
    big = plain("sleep 60", replicas=2, resources={"requests": {"cpu": "1000"}})
    del big["template"]["spec"]["containers"][0]["resources"]
    lab.submit("big", **big)
    lab.until(lambda: lab.status("big").get("pendingReason"), 30, "a reason")
    _, out, _ = shell.run("describe", "big")
    assert "Pending" in out.splitlines()[0]
    assert "cpu" in out.splitlines()[1].lower(), out


def test_follow_reads_the_pod_that_replaces_another(lab: Lab, shell: Shell) -> None:
    command = 'echo "born $HOSTNAME"; trap "exit 143" TERM; sleep 15 & wait $!'
    lab.submit("twice", **plain(command, replicas=1))
    follower = shell.start("logs", "twice", "-f")
    lab.phase("twice", "Running", seconds=60)
    old = lab.pod("twice-0")["metadata"]["uid"]
    lab.delete_pod("twice-0")
    lab.until(
        lambda: any(pod["metadata"]["uid"] != old for pod in lab.pods("twice")), 60, "a new pod"
    )
    lab.phase("twice", "Complete", seconds=120)
    timer = threading.Timer(60, follower.kill)
    timer.start()
    out, err = follower.communicate()
    timer.cancel()
    assert follower.returncode == 0, err
    assert out.splitlines().count("[0] born twice-0") == 2, out


def test_suspend_gives_the_pods_up_and_resume_brings_them_back(lab: Lab, shell: Shell) -> None:
    lab.submit("rest", **plain("sleep 5", replicas=2))
    assert shell.run("suspend", "rest")[0] == 0
    lab.phase("rest", "Suspended", seconds=60)
    lab.until(lambda: not lab.pods("rest"), 60, "no pods")
    assert shell.run("resume", "rest")[0] == 0
    lab.phase("rest", "Complete", seconds=120)
