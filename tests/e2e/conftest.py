"""Drakkar installed by its chart on the session's cluster, and a lab per test."""

import re
from collections.abc import Iterator

import pytest

from drakkar.local import Cluster
from drakkar.local.install import install
from support.lab import Lab
from support.platform import Platform


@pytest.fixture(scope="session")
def platform(cluster: Cluster) -> Platform:
    """Drakkar as a user installs it: helm, the chart, one operator Deployment."""
    # Its pages have a test of their own: the nodes are small.
    install(cluster.kubeconfig, server=False)
    found = Platform(cluster)
    found.wait_ready()
    return found


@pytest.fixture
def lab(cluster: Cluster, platform: Platform, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """An empty restricted namespace named after the test."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-")
    lab = Lab(cluster, f"e2e-{name}")
    lab.open()
    yield lab
    lab.close()
    platform.wait_ready()
