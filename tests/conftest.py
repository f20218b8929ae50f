"""What tests of all kinds share."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from drakkar.local import Cluster

# How long an example takes depends on what else the machine does.
settings.register_profile(
    "drakkar",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # CI judges a change: the same one twice in the same way. New examples are searched elsewhere.
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("drakkar")


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The local cluster with four nodes or more, brought up or healed if need be, and left up.

    It is the one named by `DRAKKAR_CLUSTER`, else the default one. If it cannot come up, the
    tests that need it fail: they are never skipped.
    """
    return Cluster.load_or_up(nodes=4)
