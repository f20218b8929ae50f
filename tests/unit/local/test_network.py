"""Addresses, and reading what ip and nft say."""

from __future__ import annotations

import ipaddress
import itertools

import pytest

from drakkar.local.errors import ClusterError
from drakkar.local.network import (
    MAX_CLUSTERS,
    AddressPlan,
    bridges_of,
    dropping_forward_chains,
    free_index,
    nat_rules,
    own_rules,
    routed_networks,
)


def test_clusters_never_share_an_address() -> None:
    plans = [AddressPlan(index) for index in range(MAX_CLUSTERS)]
    networks = [network for plan in plans for network in plan.networks()]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(networks, 2))


@pytest.mark.parametrize("number", [1, 200, 244])
def test_a_nodes_addresses_lie_in_the_clusters_networks(number: int) -> None:
    plan = AddressPlan(3)
    assert ipaddress.ip_address(plan.node_address(number)) in ipaddress.ip_network(plan.subnet)
    assert ipaddress.ip_network(plan.node_pods(number)).subnet_of(ipaddress.ip_network(plan.pods))
    assert len(plan.node_link(number)) <= 15


def test_the_first_free_number_is_taken() -> None:
    assert free_index([], []) == 0
    assert free_index([0, 2], []) == 1


def test_a_number_whose_addresses_are_routed_elsewhere_is_passed_over() -> None:
    routes = [{"dst": "default"}, {"dst": "10.96.0.0/12"}, {"dst": "10.88.0.7"}]
    # The /12 covers the services of every number below 16 and so leaves none.
    with pytest.raises(ClusterError, match=r"a route for all of 10\.96\.0\.0/12"):
        free_index([], routed_networks(routes))
    assert free_index([], routed_networks(routes[2:])) == 1


def test_chains_that_drop_forwarded_packets_are_told_to_let_ours_pass() -> None:
    ruleset = {
        "nftables": [
            {"metainfo": {}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input"}},
            {
                "chain": {
                    "family": "ip",
                    "table": "filter",
                    "name": "FORWARD",
                    "hook": "forward",
                    "policy": "drop",
                }
            },
            {
                "chain": {
                    "family": "ip6",
                    "table": "filter",
                    "name": "FORWARD",
                    "hook": "forward",
                    "policy": "drop",
                }
            },
        ]
    }
    chains = dropping_forward_chains(ruleset)
    assert chains == [("ip", "filter", "FORWARD")]
    script = nat_rules(AddressPlan(1), chains)
    assert 'ip saddr { 10.88.1.0/24, 10.129.0.0/16 } oifname != "drk1" masquerade' in script
    assert script.count("insert rule ip filter FORWARD") == 2


def test_own_rules_are_found_by_their_comment() -> None:
    rule = {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 7}
    ruleset = {"nftables": [{"rule": {**rule, "comment": "drk1"}}, {"rule": rule}]}
    assert own_rules(ruleset, "drk1") == [("ip", "filter", "FORWARD", 7)]


def test_bridges_are_found_by_the_clusters_name() -> None:
    links = [
        {"ifname": "eth0"},
        {"ifname": "drk0", "ifalias": "drakkar cluster one"},
        {"ifname": "drk4", "ifalias": "drakkar cluster two"},
    ]
    assert bridges_of(links, "two") == [AddressPlan(4)]
