"""The network of a cluster: one bridge on the host, one virtual cable to each node.

Nodes stand on the bridge's subnet. Each has a /24 for its pods, which the host routes to it, so
pods of all nodes, the nodes and the host reach each other without translation. Each cluster has
its own number and from it its own addresses, so that several can stand side by side.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from drakkar.local.errors import ClusterError
from drakkar.local.process import run

MAX_CLUSTERS = 16
API_PORT = 6443
CLUSTER_DOMAIN = "cluster.local"

_ALIAS = "drakkar cluster "


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """The addresses of the cluster with a given number (0 to 15)."""

    index: int

    @property
    def bridge(self) -> str:
        return f"drk{self.index}"

    @property
    def host(self) -> str:
        """The host on the bridge: the API server and DNS answer here."""
        return f"10.88.{self.index}.1"

    @property
    def subnet(self) -> str:
        return f"10.88.{self.index}.0/24"

    @property
    def loopback(self) -> str:
        """An address of the host that nothing outside of it reaches: etcd's."""
        return f"127.88.{self.index}.1"

    @property
    def pods(self) -> str:
        return f"10.{128 + self.index}.0.0/16"

    @property
    def services(self) -> str:
        return f"10.{96 + self.index}.0.0/16"

    @property
    def api_service(self) -> str:
        """The ClusterIP of the service `kubernetes`: the first of the range."""
        return f"10.{96 + self.index}.0.1"

    def node_address(self, number: int) -> str:
        """The address of node `number`, counted from 1."""
        return f"10.88.{self.index}.{10 + number}"

    def node_pods(self, number: int) -> str:
        return f"10.{128 + self.index}.{number}.0/24"

    def node_link(self, number: int) -> str:
        """The host's end of a node's cable (15 characters at most)."""
        return f"drk{self.index}n{number}"

    @property
    def api_url(self) -> str:
        return f"https://{self.host}:{API_PORT}"

    def networks(self) -> list[ipaddress.IPv4Network]:
        return [ipaddress.IPv4Network(net) for net in (self.subnet, self.pods, self.services)]


def routed_networks(routes: Iterable[dict[str, Any]]) -> list[ipaddress.IPv4Network]:
    """The networks in the output of `ip -json route`, without the default route."""
    names = (route.get("dst", "default") for route in routes)
    return [ipaddress.IPv4Network(name, strict=False) for name in names if name != "default"]


def free_index(taken: Iterable[int], routed: list[ipaddress.IPv4Network]) -> int:
    """The smallest number that no other cluster has and whose addresses nothing else uses."""
    used = set(taken)
    for index in range(MAX_CLUSTERS):
        networks = AddressPlan(index).networks()
        if index not in used and not any(a.overlaps(b) for a in networks for b in routed):
            return index
    ours = ipaddress.IPv4Network("10.0.0.0/8")
    wide = [str(network) for network in routed if network.overlaps(ours) and network.prefixlen < 16]
    raise ClusterError(
        "No address range is free for another local cluster:"
        + (f" this machine has a route for all of {wide[0]}." if wide else "")
        + " 'drakkar cluster down' frees one."
    )


def host_routes() -> list[ipaddress.IPv4Network]:
    """What the host has routes to now."""
    return routed_networks(json.loads(run(["ip", "-4", "-json", "route"]) or "[]"))


def link_exists(name: str) -> bool:
    return bool(run(["ip", "-json", "link", "show", "dev", name], check=False).strip())


def bridges_of(links: Iterable[dict[str, Any]], cluster: str) -> list[AddressPlan]:
    """The plans whose bridge bears the cluster's mark, from `ip -json link`.

    There is more than what the cluster's record says only if that record was lost.
    """
    return [
        AddressPlan(int(link["ifname"].removeprefix("drk")))
        for link in links
        if link.get("ifalias") == _ALIAS + cluster
    ]


def host_links() -> list[dict[str, Any]]:
    """The host's network links."""
    links: list[dict[str, Any]] = json.loads(run(["ip", "-json", "link"]) or "[]")
    return links


def nat_rules(plan: AddressPlan, forward_filters: Iterable[tuple[str, str, str]]) -> str:
    """An nft script: what leaves the cluster for elsewhere does so in the host's name.

    `forward_filters` are chains (family, table, chain) that drop forwarded packets unless told
    otherwise, as Docker sets up; each is told to let the cluster's pass.
    """
    lines = [
        f"table ip {plan.bridge} {{",
        "  chain postrouting {",
        "    type nat hook postrouting priority srcnat;",
        f'    ip saddr {{ {plan.subnet}, {plan.pods} }} oifname != "{plan.bridge}" masquerade',
        "  }",
        "}",
    ]
    for family, table, chain in forward_filters:
        lines += [
            f'insert rule {family} {table} {chain} {direction} "{plan.bridge}" accept'
            f' comment "{plan.bridge}"'
            for direction in ("iifname", "oifname")
        ]
    return "\n".join(lines) + "\n"


def dropping_forward_chains(ruleset: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Chains that drop forwarded IPv4 packets by default, from `nft --json list ruleset`."""
    chains = [item["chain"] for item in ruleset.get("nftables", []) if "chain" in item]
    return [
        (chain["family"], chain["table"], chain["name"])
        for chain in chains
        if chain.get("hook") == "forward"
        and chain.get("policy") == "drop"
        and chain["family"] in ("ip", "inet")
    ]


def own_rules(ruleset: dict[str, Any], bridge: str) -> list[tuple[str, str, str, int]]:
    """The rules that `nat_rules` put into others' chains: family, table, chain and handle."""
    rules = [item["rule"] for item in ruleset.get("nftables", []) if "rule" in item]
    return [
        (rule["family"], rule["table"], rule["chain"], rule["handle"])
        for rule in rules
        if rule.get("comment") == bridge
    ]


def _ruleset() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(run(["nft", "--json", "list", "ruleset"]) or "{}")
    return loaded


def create_bridge(plan: AddressPlan, cluster: str) -> None:
    """Make the bridge, marked with the cluster's name, and the address translation.

    What exists already is left as it is.
    """
    if not link_exists(plan.bridge):
        run(["ip", "link", "add", plan.bridge, "type", "bridge"])
        run(["ip", "link", "set", plan.bridge, "alias", _ALIAS + cluster])
        run(["ip", "address", "add", f"{plan.host}/24", "dev", plan.bridge])
        run(["ip", "link", "set", plan.bridge, "up"])
    if not run(["nft", "list", "table", "ip", plan.bridge], check=False):
        run(["nft", "-f", "-"], stdin=nat_rules(plan, dropping_forward_chains(_ruleset())))


def remove_bridge(plan: AddressPlan) -> None:
    """Undo `create_bridge`; the routes through the bridge go with it."""
    run(["nft", "delete", "table", "ip", plan.bridge], check=False)
    for family, table, chain, handle in own_rules(_ruleset(), plan.bridge):
        run(["nft", "delete", "rule", family, table, chain, "handle", str(handle)], check=False)
    if link_exists(plan.bridge):
        run(["ip", "link", "delete", plan.bridge])


def connect_node(plan: AddressPlan, number: int, pid: int) -> None:
    """Lay a cable from the bridge into the network namespace of process `pid`."""
    link, address = plan.node_link(number), plan.node_address(number)
    run(["ip", "link", "delete", link], check=False)
    run(["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid)])
    run(["ip", "link", "set", link, "master", plan.bridge, "up"])
    inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-batch", "-"]
    run(
        inside,
        stdin=f"link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\n"
        f"route add default via {plan.host}\n",
    )
    run(["ip", "route", "replace", plan.node_pods(number), "via", address, "dev", plan.bridge])


def disconnect_node(plan: AddressPlan, number: int) -> None:
    """Take the cable and the route away; absent is fine."""
    run(["ip", "route", "delete", plan.node_pods(number)], check=False)
    run(["ip", "link", "delete", plan.node_link(number)], check=False)


def set_link(plan: AddressPlan, number: int, *, up: bool) -> None:
    """Pull a node's cable out, or put it in again."""
    run(["ip", "link", "set", plan.node_link(number), "up" if up else "down"])


def route_services(plan: AddressPlan, number: int) -> None:
    """Let the host reach ClusterIPs: through a node, whose kube-proxy knows them."""
    via = plan.node_address(number)
    run(["ip", "route", "replace", plan.services, "via", via, "dev", plan.bridge])
