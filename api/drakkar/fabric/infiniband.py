"""Places of nodes from the output of ``ibnetdiscover``.

The format is the topology file of infiniband-diags: a block per switch or adapter, which begins with
its type, number of ports, GUID and, as a comment, its description; then a line per connected port.

Hosts whose adapters share a leaf switch stand in one rack. With a rail-optimised fabric each host is
on several leaves, so those of one scalable unit become one rack. Leaves that share a switch of the
next tier are in one block.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_NODE = re.compile(
    r'^(?P<type>Switch|Ca|Rt)\s+(?P<ports>\d+)\s+"(?P<guid>[SHR]-[0-9a-fA-F]+)"'
    r'(?:\s*#\s*"(?P<name>[^"]*)")?'
)
_PORT = re.compile(
    r'^\[(?P<port>\d+)\](?:\[[^\]]*\])?(?:\([0-9a-fA-F]+\))?\s+"(?P<peer>[SHR]-[0-9a-fA-F]+)"\[\d+\]'
)
_STARTS = ("Switch", "Ca", "Rt")


class FabricError(ValueError):
    """The text is not what it should be; the message names the line."""


@dataclass(slots=True)
class Element:
    """A switch or an adapter."""

    guid: str
    name: str
    peers: set[str] = field(default_factory=set)

    @property
    def switch(self) -> bool:
        """Whether it is a switch."""
        return self.guid.startswith("S-")


def parse(text: str) -> dict[str, Element]:
    """All switches and adapters by GUID, linked in both directions. Raises FabricError."""
    found: dict[str, Element] = {}
    current: Element | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(_STARTS):
            match = _NODE.match(line)
            if match is None:
                raise FabricError(f"line {number} is no switch or adapter: {line[:80]!r}")
            current = found.setdefault(match["guid"], Element(match["guid"], ""))
            current.name = match["name"] or match["guid"]
        elif line.startswith("["):
            port = _PORT.match(line)
            if port is None or current is None:
                what = "is no port" if port is None else "is a port of nothing"
                raise FabricError(f"line {number} {what}: {line[:80]!r}")
            peer = found.setdefault(port["peer"], Element(port["peer"], port["peer"]))
            current.peers.add(peer.guid)
            peer.peers.add(current.guid)
    if not any(element.switch for element in found.values()):
        raise FabricError("there is no switch in it: is this the output of ibnetdiscover?")
    return found


def places(fabric: Mapping[str, Element], nodes: Iterable[str]) -> dict[str, dict[str, str]]:
    """Block and rack of each node that an adapter's description begins with the name of."""
    leaves: dict[str, set[str]] = {}
    known = _by_short_name(nodes)
    for element in fabric.values():
        words = element.name.split()
        node = known.get(words[0].split(".")[0].lower()) if words else None
        if not element.switch and node is not None:
            near = {guid for guid in element.peers if fabric[guid].switch}
            leaves.setdefault(node, set()).update(near)
    every_leaf = {
        guid
        for element in fabric.values()
        if not element.switch
        for guid in element.peers
        if fabric[guid].switch
    }
    racks = _merged(every_leaf, leaves.values())
    # What a leaf has above it: switches without hosts.
    spines = {leaf: {p for p in fabric[leaf].peers if fabric[p].switch} for leaf in every_leaf}
    together: dict[str, set[str]] = {}
    for leaf, above in spines.items():
        for spine in above - every_leaf:
            together.setdefault(spine, set()).add(leaf)
    direct = [{leaf, *(above & every_leaf)} for leaf, above in spines.items()]
    blocks = _merged(every_leaf, [*leaves.values(), *together.values(), *direct])
    return {
        node: {
            "block": f"ib-{_name(blocks[min(found)])}",
            "rack": f"ib-{_name(racks[min(found)])}",
        }
        for node, found in leaves.items()
        if found
    }


def _by_short_name(nodes: Iterable[str]) -> dict[str, str]:
    """Descriptions carry a host's short name, which node names may go on from."""
    return {name.split(".")[0].lower(): name for name in nodes}


def _merged(items: Iterable[str], groups: Iterable[set[str]]) -> dict[str, frozenset[str]]:
    """Item -> all items that it is connected with through the groups."""
    parent = {item: item for item in items}

    def root(item: str) -> str:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for group in groups:
        first, *others = sorted(group) or [""]
        for other in others:
            parent[root(other)] = root(first)
    members: dict[str, set[str]] = {}
    for item in parent:
        members.setdefault(root(item), set()).add(item)
    return {item: frozenset(members[root(item)]) for item in parent}


def _name(leaves: frozenset[str]) -> str:
    """A name that stays: the first leaf's GUID; descriptions are often the same for all."""
    return min(leaves).removeprefix("S-").lower()
