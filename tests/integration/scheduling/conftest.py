"""One node is enough: kube-scheduler alone is asked, about nodes of the tests' own."""

import pytest

from drakkar.local import Cluster


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The session's cluster."""
    return Cluster.load_or_up(nodes=1)
