"""`drakkar demo`: train, lose a pod on the way, resume, look at what came out."""

import shutil
import threading
import time
from pathlib import Path

from rich.markup import escape

from drakkar.cli import follow, progress
from drakkar.cli.session import Kubeconfig, command, console, fail
from drakkar.client import Client, ClientError, NotFoundError
from drakkar.client.kubeconfig import find_kubeconfig
from drakkar.local import ClusterError
from drakkar.local.build import ensure_programs
from drakkar.local.paths import checkout
from drakkar.local.process import run
from drakkar.local.progress import Silent
from drakkar.v1alpha1 import TrainingJob

NAMESPACE = "demo"
JOB = "train-gpt"
EXAMPLE = Path("examples/train-gpt.yaml")
VICTIM = 2
"""Replica whose pod is killed once there is a checkpoint to resume from."""

_NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}


class _Kubectl:
    """kubectl as a user would type it: each command is shown before it runs."""

    def __init__(self, kubeconfig: str | None) -> None:
        found = shutil.which("kubectl")
        self.program = Path(found) if found else ensure_programs(Silent(), ["kube"]).kubectl
        self.options = ["--kubeconfig", kubeconfig] if kubeconfig else []

    def __call__(self, *words: str) -> None:
        console.print(f"[bold]$ kubectl {escape(' '.join(words))}[/]")
        output = run([self.program, *self.options, *words])
        console.print(escape(output.rstrip()), highlight=False)


@command
def demo(kubeconfig: Kubeconfig = None) -> None:
    """Train a small GPT on the cluster, kill a pod on the way, and see it resume."""
    root = checkout()
    if root is None:
        raise fail("the demo needs the source tree with its examples; run make demo in a checkout")
    client = Client.connect(kubeconfig, namespace=NAMESPACE)
    kubectl = _Kubectl(find_kubeconfig(kubeconfig))
    try:
        client.apply(_NAMESPACE)
        _clear(client, kubectl)
        kubectl("apply", "-n", NAMESPACE, "-f", str(EXAMPLE))
        accident = threading.Thread(target=_accident, args=(client, kubectl), daemon=True)
        accident.start()
        ended = follow.until_finished(client, NAMESPACE, JOB, console)
    except ClusterError as error:
        raise fail(str(error)) from None
    if not ended.is_true("Complete"):
        raise fail(f"{JOB} failed: {progress.reason(ended)}")
    _tell(ended)


def _clear(client: Client, kubectl: _Kubectl) -> None:
    """A demo that ran before is taken away, with its checkpoints: the new one starts at step 0."""
    try:
        client.training_jobs.get(JOB)
    except NotFoundError:
        pass
    else:
        kubectl("delete", "-n", NAMESPACE, "-f", str(EXAMPLE), "--ignore-not-found")


def _accident(client: Client, kubectl: _Kubectl) -> None:
    """Wait for a checkpoint and some steps after it, then kill a pod without warning."""
    while True:
        time.sleep(0.5)
        try:
            status = client.training_jobs.get(JOB).status
        except ClientError:
            continue
        if status.phase in ("Complete", "Failed"):
            return
        saved = max((record.step for record in status.checkpoints), default=None)
        if saved is not None and status.progress and status.progress.step > saved + 5:
            break
    console.print("\n[bold yellow]An accident: one of the four pods is killed.[/]")
    pod = f"{JOB}-{VICTIM}"
    kubectl("delete", "pod", "-n", NAMESPACE, pod, "--grace-period=0", "--force")


def _tell(job: TrainingJob) -> None:
    """What came out, and where to look next."""
    reached = job.status.progress
    assert reached is not None
    console.print("\n[bold green]The job is complete.[/]", progress.speed(reached))
    for restart in job.status.restarts:
        console.print(f"  survived: {escape(progress.restart_line(restart))}")
    if reached.sample:
        console.print(f"\n[bold]What the model writes after {reached.step} steps[/]")
        console.print(escape(reached.sample), highlight=False)
    console.print("\n[bold]Look around[/]")
    for words in (
        "drakkar dashboard        # a link to the pages in the browser",
        f"drakkar describe {JOB} -n {NAMESPACE}",
        f"drakkar logs {JOB} -n {NAMESPACE} --rank 0",
        f"kubectl describe tj {JOB} -n {NAMESPACE}",
        f"kubectl get pods -n {NAMESPACE} -o wide",
        "kubectl explain trainingjob.spec",
        "make clean-cluster",
    ):
        console.print(f"  {words}", highlight=False)
