"""Nodes that a job keeps away from."""

from datetime import UTC, datetime

import pytest

from drakkar.v1alpha1.trainingjob import Restart
from drakkar_operator.reconcile.restarts import avoided_nodes

CREATED = 1_800_000_000.0


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(CREATED + seconds, UTC)


@pytest.mark.parametrize(
    ("faults", "avoided"),
    [
        pytest.param([("a", "ProcessHung", 10)] * 2, set(), id="twice may be chance"),
        pytest.param([("a", "ProcessHung", 10)] * 3, {"a"}, id="three times"),
        pytest.param([("a", "ProcessHung", 3600)] * 3, set(), id="long ago"),
        pytest.param([("a", "ProcessHung", 3600)] * 12, {"a"}, id="long ago, but often"),
        pytest.param([("a", "ProcessCrashed", 10)] * 9, set(), id="rather the code's"),
        pytest.param([("a", "Refused", 10)], {"a"}, id="refused just now"),
    ],
)
def test_nodes_that_fail_again_and_again_are_avoided_for_a_while(faults, avoided) -> None:
    restarts = [
        Restart(id=str(i), time=at(-age), scope="process", reason=reason, node=node)
        for i, (node, reason, age) in enumerate(faults)
    ]
    assert avoided_nodes(restarts, CREATED) == avoided
