"""Gangs per second through a real API server: python tests/bench/gangs.py [WORKLOAD ...]

Every contender gets the same gangs on the same cluster of KWOK nodes, one contender after the other;
times are those of the API server's watch. Workloads:

N1  bursts that fill 32 nodes nine times over, pods of 30 s (knavigator's gang benchmark): makespan
N2  one job of 3 on 12 nodes below three layers of switches, 5 cordoned: n5, n7 and n8 are right
V1  10 jobs of 50 pods, each in one of 4 racks of 25 nodes
V2  1,000 gangs of 1 pod, 50 of 20, 2 of 500 on 1,000 nodes: pods bound per second
A1  4,000 one-GPU jobs fill 500 nodes; then a gang of 10 with room for 9: time to the verdict

``--scale 0.1`` takes a tenth of the nodes and gangs (of N1: of the seconds), ``--contenders`` says
who runs: drakkar, kube-scheduler, or a folder of manifests (see ``support.contenders.Manifests``).
"""
# ruff: noqa: E402

import sys
from pathlib import Path

# As a script this file's folder comes first on the path, and the standard library has an `operator`.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import asyncio
import logging
import signal
import statistics
import tempfile
from collections.abc import Awaitable, Callable

import structlog

from drakkar.local import Cluster
from support.contenders import Contender, Drakkar, Gang, Manifests, Plain
from support.gang_track import Row, Track

N1 = [
    [(1, 32)],
    [(2, 16)],
    [(3, 10), (1, 2)],
    [(4, 8)],
    [(5, 6), (2, 1)],
    [(6, 5), (1, 2)],
    [(7, 4), (1, 2), (2, 1)],
    [(8, 4)],
    [(9, 3), (1, 5)],
]
"""(jobs, nodes of each) per wave; every wave fills 32 nodes."""
CORDONED = (1, 3, 6, 11, 12)
RIGHT = ["n5", "n7", "n8"]


async def n1(track: Track, scale: float) -> list[Row]:
    """Makespan over the ideal one."""
    seconds = 30 * scale
    await track.nodes(32)
    sizes = [size for wave in N1 for jobs, size in wave for _ in range(jobs)]
    gangs = [Gang(f"n1-{at:03}", size, 8, seconds=seconds) for at, size in enumerate(sizes)]
    done = await track.run(gangs, limit=60 + 40 * seconds, finish=True)
    ideal = len(N1) * seconds
    return [
        Row("N1", f"makespan over ideal ({ideal:.0f} s)", done.finished / ideal, lower=True),
        *done.cpu("N1"),
    ]


async def n2(track: Track, _: float) -> list[Row]:
    """Whether the three nodes nearest to each other are found."""
    await track.nodes(12, rack=lambda at: f"s1-{at // 4}", block=lambda at: f"s2-{at // 8}")
    await track.cordon([number - 1 for number in CORDONED])
    # Without a level asked for: the fabric alone says where three nodes are near to each other.
    done = await track.run([Gang("n2", 3, 8)], limit=60)
    found = sorted((f"n{track.number(node) + 1}" for node in done.nodes("n2")), key=len)
    right = sorted(found) == RIGHT
    return [Row("N2", f"right answer (found {', '.join(sorted(found))})", float(right))]


async def v1(track: Track, _: float) -> list[Row]:
    """Gangs that must each stay in one rack."""
    await track.nodes(100, rack=lambda at: f"r{at // 25}", block=lambda at: f"spine{at // 50}")
    done = await track.run([Gang(f"v1-{at}", 50, 1, "rack") for at in range(10)], limit=180)
    kept = sum(
        len({track.number(node) // 25 for node in done.nodes(f"v1-{at}")}) == 1 for at in range(10)
    )
    return [
        Row("V1", "pods bound/s", done.pods_per_second),
        Row("V1", "gangs in one rack, of 10", float(kept)),
        *done.cpu("V1"),
    ]


async def v2(track: Track, scale: float) -> list[Row]:
    """Many small gangs, some middling ones, two large ones."""
    rows = []
    await track.nodes(max(1, round(1000 * scale)))
    for count, size in ((1000, 1), (50, 20), (2, 500)):
        count, size = (
            (count, max(1, round(size * scale)))
            if count == 2
            else (
                max(1, round(count * scale)),
                size,
            )
        )
        gangs = [Gang(f"v2-{size}-{at}", size) for at in range(count)]
        done = await track.run(gangs, limit=300)
        label = f"V2 {count}x{size}"
        rows += [
            Row(label, "pods bound/s", done.pods_per_second),
            Row(label, "gangs/s", done.gangs_per_second),
            *done.cpu(label),
        ]
    return rows


async def a1(track: Track, scale: float) -> list[Row]:
    """Fill all devices, then ask for one more than is free."""
    nodes = max(2, round(500 * scale))
    await track.nodes(nodes)
    fill = [Gang(f"a1-{at:05}", 1) for at in range(8 * nodes)]
    done = await track.run(fill, limit=900, keep=True)
    rows = [Row("A1 fill", "gangs/s", done.gangs_per_second), *done.cpu("A1 fill")]
    await track.withdraw(fill[:9])
    verdict, text = await track.verdict(Gang("a1-late", 10), limit=120)
    held = len(await track.bound("a1-late"))
    rows.append(Row("A1", f"verdict s, {held} of 10 pods bound", verdict, lower=True))
    print(f"    {track.contender.name}: {text[:200]}")
    await track.clear()
    return rows


WORKLOADS: dict[str, Callable[[Track, float], Awaitable[list[Row]]]] = {
    "N1": n1,
    "N2": n2,
    "V1": v1,
    "V2": v2,
    "A1": a1,
}


def contender(name: str, folder: Path, profile: Path | None) -> Contender:
    """By name, or by a folder of manifests."""
    if name == "drakkar":
        return Drakkar(folder, profile)
    if name == "kube-scheduler":
        return Plain()
    if Path(name).is_dir():
        return Manifests(Path(name))
    raise SystemExit(f"no contender {name!r}: drakkar, kube-scheduler or a folder of manifests")


async def measure(options: argparse.Namespace, cluster: Cluster) -> dict[str, list[list[Row]]]:
    """Rows of every round by contender."""
    found: dict[str, list[list[Row]]] = {name: [] for name in options.contenders}
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(options.rounds):
            for name in options.contenders:
                who = contender(name, Path(folder), options.profile)
                async with Track.on(cluster, who) as track:
                    rows: list[Row] = []
                    for load in options.workloads:
                        print(f"round {round_ + 1}, {name}: {load}", flush=True)
                        try:
                            rows += (new := await WORKLOADS[load](track, options.scale))
                            for row in new:
                                print(f"    {row.workload} {row.what}: {row.value:.2f}", flush=True)
                        except TimeoutError as error:
                            print(f"    given up: {error}", flush=True)
                            await track.clear()
                found[name].append(rows)
    return found


def show(found: dict[str, list[list[Row]]]) -> None:
    """Medians in a table, with the ratio of the first contender to each other one."""
    names = list(found)
    cells: dict[tuple[str, str], dict[str, list[float]]] = {}
    for name, rounds in found.items():
        for row in (row for rows in rounds for row in rows):
            cells.setdefault((row.workload, row.what), {}).setdefault(name, []).append(row.value)
    lower = {(r.workload, r.what): r.lower for rs in found.values() for rows in rs for r in rows}
    first = names[0]
    print(f"\n{'':58}" + "".join(f"{name:>16}" for name in names) + f"   {first} is better by")
    for key, values in cells.items():
        medians = {name: statistics.median(v) for name, v in values.items()}
        shown = "".join(f"{medians[n]:>16.2f}" if n in medians else f"{'':>16}" for n in names)
        ratios = [
            f"{(medians[n] / medians[first] if lower[key] else medians[first] / medians[n]):.2f}"
            for n in names[1:]
            if n in medians and medians.get(first) and medians[n]
        ]
        print(f"{key[0]:12}{key[1]:46}{shown}   {' '.join(ratios)}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), metavar="WORKLOAD")
    parser.add_argument("--contenders", nargs="+", default=["drakkar", "kube-scheduler"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--profile", type=Path, help="cProfile of the operator goes to this file")
    options = parser.parse_args()
    if unknown := set(options.workloads) - set(WORKLOADS):
        raise SystemExit(f"no workload {', '.join(unknown)}: {', '.join(WORKLOADS)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    # Asked to end, it leaves no operator behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cluster = Cluster.load_or_up(nodes=1)
    try:
        show(asyncio.run(measure(options, cluster)))
    finally:
        cluster.set_fake_nodes(0)


if __name__ == "__main__":
    main()
