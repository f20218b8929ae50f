"""A client of a cluster that has the kinds of this checkout."""

import time
from pathlib import Path

import pytest
import yaml

from drakkar.client import Client, NotFoundError, NotInstalledError
from drakkar.local import Cluster
from drakkar.v1alpha1 import KINDS

CRDS = Path(__file__).parents[3] / "charts" / "drakkar" / "crds"


@pytest.fixture(scope="session")
def client(cluster: Cluster) -> Client:
    """Talks to the session's cluster, where the kinds are up to date."""
    client = Client.connect(str(cluster.kubeconfig))
    for path in CRDS.glob("*.yaml"):
        client.apply(yaml.safe_load(path.read_text()))
    deadline = time.monotonic() + 30
    for resource in (
        client.training_jobs,
        client.inference_services,
        client.queues,
        client.topologies,
    ):
        while True:
            try:
                resource.list(all_namespaces=True)
                break
            except (NotInstalledError, NotFoundError):
                assert time.monotonic() < deadline, [model.KIND.resource for model in KINDS]
                time.sleep(0.2)
    return client
