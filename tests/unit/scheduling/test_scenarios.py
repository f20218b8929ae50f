"""Known placements: benchmarks of others and what users of other schedulers suffered from."""

import random
from collections import Counter

import pytest

from drakkar.v1alpha1.gang import RankGroup, TopologyRequest
from drakkar_operator.model import NodeView
from drakkar_operator.scheduling.decision import Unplaced
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.queueing import schedule
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Pending
from support.scheduling import GPU, gang, node, placed, pod, snapshot, spread


def racks(count: int, nodes: int, gpus: int = 8, block: str = "b") -> list[NodeView]:
    """``count`` racks of ``nodes`` nodes each."""
    return [
        node(f"{block}{r}-n{n}", f"z/{block}/{block}r{r}", gpus)
        for r in range(count)
        for n in range(nodes)
    ]


def test_n2_three_replicas_under_one_of_three_switches() -> None:
    """knavigator's nwtopo: 12 nodes under 3 layers of switches, 5 of them cordoned."""
    switches = {
        f"n{at}": {
            "net-layer-1": f"sw1{(at + 1) // 2}",
            "net-layer-2": f"sw2{(at + 3) // 4}",
            "net-layer-3": "sw31",
        }
        for at in range(1, 13)
    }
    busy = {"n1", "n3", "n6", "n11", "n12"}
    nodes = [
        node(name, labels=labels, unschedulable=name in busy) for name, labels in switches.items()
    ]
    levels = tuple((f"layer-{at}", f"net-layer-{at}") for at in (3, 2, 1))
    answer = placed(Snapshot.build(nodes, (), (), levels), gang(3, 8))
    assert set(answer.nodes.values()) == {"n5", "n7", "n8"}
    assert (answer.level, answer.domain) == ("layer-2", "sw31/sw22")


def test_v1_ten_gangs_of_fifty_fill_two_spines() -> None:
    """Volcano's topology test: 100 nodes, 4 racks, 2 spines, 10 gangs of 50 in one rack each."""
    nodes = [node(f"n{at}", f"z/spine{at // 50}/rack{at // 25}", 8) for at in range(100)]
    snap = snapshot(nodes)
    pending = [
        Pending(("v", f"job-{at}"), gang(50, 1, {"required": "rack"}, key=("v", f"job-{at}")))
        for at in range(10)
    ]
    decisions = schedule(snap, pending, {})
    assert all(decision.placed for decision in decisions)
    for decision in decisions:
        assert decision.placed is not None
        assert decision.placed.level == "rack"
        # 50 of 8 to a node need 7 nodes, or fewer than that in part once racks fill up.
        assert len(set(decision.placed.nodes.values())) in (7, 8)
    # Two gangs leave a rack 100 of 200 devices; nothing was spread that could be kept together.
    per_rack = Counter(decision.placed.domain for decision in decisions if decision.placed)
    assert sorted(per_rack.values()) == [2, 4, 4]


def test_n1_waves_fill_the_cluster_exactly() -> None:
    """knavigator's gang burst: each wave of jobs takes all 32 nodes, none is left over."""
    waves = (
        {1: 32}, {2: 16}, {3: 10, 1: 2}, {4: 8}, {5: 6, 2: 1}, {6: 5, 1: 2}, {7: 4, 1: 2, 2: 1},
        {8: 4}, {9: 3, 1: 5},
    )  # fmt: skip
    for wave in waves:
        sizes = [size for size, count in wave.items() for _ in range(count)]
        pending = [
            Pending(("n", f"j{at}"), gang(size, 8, key=("n", f"j{at}")), created=at)
            for at, size in enumerate(sizes)
        ]
        decisions = schedule(snapshot(racks(4, 8)), pending, {})
        taken = [name for d in decisions if d.placed for name in d.placed.nodes.values()]
        assert len(taken) == len(set(taken)) == 32


def test_a1_a_gang_one_device_short_is_told_so() -> None:
    """KAI's scale test: 500 nodes of 8, a gang that lacks one device of all there are."""
    snap = snapshot(racks(25, 20), [pod("p", "b0-n0", 1)])
    assert isinstance(place(snap, gang(500 * 8, 1)), Unplaced)
    answer = place(snap, gang(500, 8))
    assert isinstance(answer, Unplaced)
    assert (answer.need, answer.best, answer.blocked_by) == (500, 499, {GPU: 8})
    assert len(placed(snap, gang(500 * 8 - 1, 1)).nodes) == 500 * 8 - 1


def test_small_gangs_fill_started_racks_first() -> None:
    """kueue PR 10406: small jobs must not be scattered over empty racks."""
    snap = snapshot(racks(4, 4), [pod("p", "b2-n1", 8)])
    for _ in range(3):
        answer = placed(snap, gang(1, 8))
        assert answer.nodes[0].startswith("b2-")
        snap = snap.assume(answer)


def test_the_tightest_domain_is_chosen_and_whole_ones_stay_whole() -> None:
    nodes = [*racks(1, 2, block="two"), *racks(1, 3, block="three"), *racks(1, 4, block="four")]
    answer = placed(snapshot(nodes), gang(3, 8))
    assert answer.domain == "z/three/threer0"


def test_a_gang_of_part_nodes_leaves_whole_nodes_alone() -> None:
    snap = snapshot(racks(1, 4), [pod("p", "b0-n2", 6), pod("q", "b0-n3", 4)])
    assert set(placed(snap, gang(2, 1)).nodes.values()) == {"b0-n2"}
    assert set(placed(snap, gang(3, 1)).nodes.values()) == {"b0-n3"}
    # 8 + 4 is exact; 8 + 8 would leave four over on a node that was empty.
    assert set(placed(snap, gang(12, 1)).nodes.values()) == {"b0-n0", "b0-n3"}


def test_what_is_left_over_is_left_where_least_was_free() -> None:
    snap = snapshot(racks(1, 2), [pod("p", "b0-n0", 3)])
    assert Counter(placed(snap, gang(12, 1)).nodes.values()) == {"b0-n0": 4, "b0-n1": 8}


def test_a_gang_without_devices_keeps_off_nodes_that_have_them() -> None:
    nodes = [node("a-gpu", "z/b/r"), node("b-cpu", "z/b/r", gpus=0)]
    answer = placed(snapshot(nodes), gang(2, requests={"cpu": 1000}))
    assert set(answer.nodes.values()) == {"b-cpu"}


def test_ranks_follow_the_topology() -> None:
    """Neighbours in rank are neighbours in the fabric, whatever order the nodes came in."""
    nodes = racks(3, 4)
    random.Random(3).shuffle(nodes)
    answer = placed(snapshot(nodes), gang(96, 1))
    assert [answer.nodes[at] for at in range(0, 96, 8)] == sorted({n.name for n in nodes})
    assert all(len({answer.nodes[at + i] for i in range(8)}) == 1 for at in range(0, 96, 8))


def test_names_sort_as_people_count() -> None:
    nodes = [node(f"n{at}", "z/b/r", 1) for at in (10, 9, 2, 1)]
    assert [*placed(snapshot(nodes), gang(4, 1)).nodes.values()] == ["n1", "n2", "n9", "n10"]


def test_the_same_rack_label_in_two_blocks_is_two_racks() -> None:
    nodes = [node("a", "z/b1/rack-1", 1), node("b", "z/b2/rack-1", 1)]
    assert placed(snapshot(nodes), gang(2, 1)).level == "zone"
    assert isinstance(place(snapshot(nodes), gang(2, 1, {"required": "rack"})), Unplaced)


def test_a_node_without_the_label_shares_no_rack() -> None:
    nodes = [node("a", "z/b/", 1), node("b", "z/b/", 1), node("c", "z/b/r", 1)]
    answer = place(snapshot(nodes), gang(2, 1, {"required": "rack"}))
    assert isinstance(answer, Unplaced)
    assert answer.best == 1
    assert placed(snapshot(nodes), gang(3, 1)).level == "block"


def test_a_cluster_that_labels_racks_only_has_racks() -> None:
    nodes = [node("a", "//r1", 1), node("b", "//r1", 1), node("c", "//r2", 1)]
    answer = placed(snapshot(nodes), gang(2, 1, {"required": "rack"}))
    assert (answer.level, answer.domain) == ("rack", "r1")
    assert placed(snapshot(nodes), gang(3, 1)).level == "cluster"


def test_preferred_goes_wider_when_it_must() -> None:
    snap = snapshot(racks(2, 2))
    assert placed(snap, gang(2, 8, {"preferred": "rack"})).level == "rack"
    assert placed(snap, gang(3, 8, {"preferred": "rack"})).level == "block"
    assert isinstance(place(snap, gang(3, 8, {"required": "rack"})), Unplaced)


def test_groups_stay_whole_while_the_gang_spreads() -> None:
    """Two tensor-parallel groups of four over racks that have room for five and four."""
    nodes = [*racks(1, 5, block="x"), *racks(1, 4, block="y")]
    answer = placed(snapshot(nodes), gang(8, 8, {"groups": [{"size": 4, "level": "rack"}]}))
    for group in (range(4), range(4, 8)):
        assert len({answer.nodes[at].split("-")[0] for at in group}) == 1
    three = [*racks(1, 5, block="x"), *racks(1, 3, block="y")]
    refused = place(snapshot(three), gang(8, 8, {"groups": [{"size": 4, "level": "rack"}]}))
    assert isinstance(refused, Unplaced)
    assert (refused.need, refused.best, refused.unit) == (2, 1, "group")


def test_a_lost_rank_of_a_group_returns_to_its_rack() -> None:
    nodes = [*racks(1, 4, block="x"), *racks(1, 5, block="y")]
    pods = [pod(f"{b}{at}", f"{b}0-n{at}", 8) for b in "xy" for at in range(3)]
    fixed = {0: "x0-n0", 1: "x0-n1", 2: "x0-n2", 4: "y0-n0", 5: "y0-n1", 6: "y0-n2"}
    request = gang(8, 8, {"groups": [{"size": 4, "level": "rack"}]}, fixed=fixed)
    snap = snapshot(nodes, pods)
    assert placed(snap, request).nodes == {3: "x0-n3", 7: "y0-n3"}
    answer = place(snapshot(nodes, [*pods, pod("x3", "x0-n3", 8)]), request)
    assert isinstance(answer, Unplaced)
    assert "like the rest of replicas 0-3" in answer.reason


def test_a_group_that_is_torn_already_is_not_called_whole() -> None:
    """Its smaller groups have their racks, in two blocks: where the lost ranks go heals nothing."""
    nodes = [*racks(1, 2, block="x"), *racks(1, 2, block="y")]
    groups = {"groups": [{"size": 2, "level": "rack"}, {"size": 4, "level": "block"}]}
    request = gang(4, 8, groups, fixed={0: "x0-n0", 2: "y0-n0"})
    held = [pod("p0", "x0-n0", 8), pod("p2", "y0-n0", 8)]
    answer = place(snapshot(nodes, held), request)
    assert isinstance(answer, Unplaced)
    assert "replicas 0-3 must share one block but run in 2" in answer.reason


class TestRepair:
    """Ranks that stay are the reason for where the others go."""

    def test_a_replacement_stays_near(self) -> None:
        nodes = [*racks(2, 3, block="x"), *racks(2, 3, block="y")]
        snap = snapshot(nodes, [pod("p0", "x1-n0", 8), pod("p1", "x1-n1", 8)])
        answer = placed(snap, gang(3, 8, fixed={0: "x1-n0", 1: "x1-n1"}))
        assert answer.nodes == {2: "x1-n2"}
        assert answer.level == "rack"
        assert answer.all_nodes == ("x1-n0", "x1-n1", "x1-n2")

    def test_it_goes_to_the_next_rack_when_its_own_is_full(self) -> None:
        nodes = [*racks(2, 2, block="x"), *racks(2, 2, block="y")]
        snap = snapshot(nodes, [pod("p0", "x1-n0", 8), pod("p1", "x1-n1", 8)])
        assert placed(snap, gang(3, 8, fixed={0: "x1-n0", 1: "x1-n1"})).nodes == {2: "x0-n0"}

    def test_the_required_rack_is_the_one_of_the_others(self) -> None:
        nodes = racks(2, 2)
        snap = snapshot(nodes, [pod("p0", "b0-n0", 8), pod("p1", "b0-n1", 8)])
        answer = place(snap, gang(3, 8, {"required": "rack"}, fixed={0: "b0-n0", 1: "b0-n1"}))
        assert isinstance(answer, Unplaced)
        assert "where the other ranks are; it has room for 0" in answer.reason

    def test_several_nodes_at_once(self) -> None:
        """kueue#14244: a second failed node must not cost the whole job."""
        snap = snapshot(racks(2, 6), [pod(f"p{at}", f"b0-n{at}", 8) for at in range(2)])
        request = gang(
            4,
            8,
            {"required": "rack"},
            fixed={0: "b0-n0", 1: "b0-n1"},
            avoid=frozenset({"b0-n2", "b0-n3"}),
        )
        assert placed(snap, request).nodes == {2: "b0-n4", 3: "b0-n5"}

    def test_ranks_out_of_order_disturb_nothing(self) -> None:
        """kueue#13919: one rank out of range must not lose the order of all."""
        snap = snapshot(racks(1, 4), [pod("p", "b0-n3", 8)])
        answer = placed(snap, gang(4, 8, fixed={1: "b0-n3"}))
        assert [answer.nodes[at] for at in (0, 2, 3)] == ["b0-n0", "b0-n1", "b0-n2"]

    def test_a_rack_with_more_room_than_needed(self) -> None:
        """The second of three racks: the room of others with lower numbers is no temptation."""
        pods = [pod("p", "b1-n3", 8)]
        snap = snapshot(racks(3, 6), pods)
        request = gang(3, 8, {"required": "rack"}, fixed={0: "b1-n3"})
        assert placed(snap, request).nodes == {1: "b1-n0", 2: "b1-n1"}

    def test_first_the_same_node_then_the_same_rack(self) -> None:
        nodes = racks(3, 3)
        snap = snapshot(nodes, [pod("p", "b1-n2", 6), pod("q", "b1-n0", 5)])
        request = gang(6, 1, fixed={0: "b1-n2"})
        assert Counter(placed(snap, request).nodes.values()) == {"b1-n2": 2, "b1-n0": 3}
        far = gang(20, 1, fixed={0: "b1-n2"})
        assert Counter(placed(snap, far).nodes.values()) == {
            "b1-n2": 2, "b1-n0": 3, "b1-n1": 8, "b0-n0": 6,
        }  # fmt: skip

    def test_ranks_in_two_racks_take_neighbours_in_both_before_a_third(self) -> None:
        pods = [pod("p", "b1-n0", 8), pod("q", "b2-n0", 8)]
        snap = snapshot(racks(4, 2), pods)
        request = gang(4, 8, fixed={0: "b1-n0", 3: "b2-n0"})
        assert placed(snap, request).nodes == {1: "b1-n1", 2: "b2-n1"}

    def test_nothing_missing(self) -> None:
        snap = snapshot(racks(1, 2))
        answer = placed(snap, gang(1, 8, fixed={0: "b0-n1"}))
        assert (answer.nodes, answer.level) == ({}, "host")

    def test_a_node_that_is_gone(self) -> None:
        answer = place(snapshot(racks(1, 2)), gang(2, 8, fixed={0: "gone"}))
        assert isinstance(answer, Unplaced)
        assert answer.reason == "replica 0 is to stay on node gone, which is gone"


class TestHints:
    """A rank goes back to its node if that costs nothing."""

    def test_back_to_the_same_nodes(self) -> None:
        hint = {0: "b1-n2", 1: "b1-n0"}
        assert placed(snapshot(racks(3, 3)), gang(2, 8, hint=hint)).nodes == hint

    def test_elsewhere_when_the_node_is_taken(self) -> None:
        snap = snapshot(racks(3, 3), [pod("p", "b1-n2", 8)])
        answer = placed(snap, gang(2, 8, hint={0: "b1-n2", 1: "b1-n0"}))
        assert answer.nodes == {0: "b1-n1", 1: "b1-n0"}

    def test_not_at_the_price_of_a_wider_level(self) -> None:
        snap = snapshot(racks(3, 3))
        answer = placed(snap, gang(2, 8, hint={0: "b1-n2", 1: "b2-n0"}))
        assert answer.level == "rack"

    def test_in_a_repair_the_old_node_counts_more_than_the_level(self) -> None:
        snap = snapshot(racks(2, 3), [pod("p", "b0-n0", 8)])
        assert placed(snap, gang(2, 8, fixed={0: "b0-n0"}, hint={1: "b1-n1"})).nodes == {1: "b1-n1"}
        both = gang(2, 8, {"required": "rack"}, fixed={0: "b0-n0"}, hint={1: "b1-n1"})
        assert placed(snap, both).nodes == {1: "b0-n1"}


def test_hints_that_tear_a_group_are_not_taken() -> None:
    snap = snapshot(racks(2, 4))
    request = gang(
        4,
        8,
        {"groups": [{"size": 2, "level": "rack"}]},
        hint={0: "b0-n0", 1: "b1-n0", 2: "b1-n1", 3: "b1-n2"},
    )
    nodes = placed(snap, request).nodes
    assert nodes[0][:2] == nodes[1][:2]
    assert nodes[2][:2] == nodes[3][:2]


def test_host_ports_put_one_replica_on_a_node() -> None:
    ports = (("", "TCP", 9000),)
    snap = snapshot(racks(1, 3), [pod("p", "b0-n1", host_ports=(("10.0.0.1", "TCP", 9000),))])
    assert placed(snap, gang(2, 1, host_ports=ports)).nodes == {0: "b0-n0", 1: "b0-n2"}
    after = snap.assume(placed(snap, gang(2, 1, host_ports=ports)))
    assert isinstance(place(after, gang(1, 1, host_ports=ports)), Unplaced)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"missing": (3,)}, "index 3 is outside 0..2"),
        ({"missing": (0, 0)}, "twice"),
        ({"missing": (0,), "fixed": {0: "n"}}, "both missing and fixed"),
        ({"missing": (0,), "fixed": {1: "n"}}, r"indexes \[2\] are neither"),
        (
            {"topology": TopologyRequest(groups=[RankGroup(size=2, level="rack")])},
            "do not divide 3",
        ),
    ],
)
def test_a_request_that_contradicts_itself(fields: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        GangRequest.uniform(("team", "job"), 3, {GPU: 1}, **fields)  # type: ignore[arg-type]


def test_a_big_gang_on_a_big_cluster() -> None:
    """512 pods over 10,000 nodes: whole racks, each filled before the next."""
    nodes = [node(f"n{at}", f"z{at // 1024}/b{at // 256}/r{at // 16}", 8) for at in range(10_000)]
    snap = snapshot(nodes)
    answer = placed(snap, gang(512, 8))
    assert answer.level == "zone"
    own = snapshot([view for view in nodes if view.name in set(answer.nodes.values())])
    assert spread(own, answer.nodes.values()) == (1, 2, 32, 512)
