"""A figure that was mistyped, or taken with sparsity, disagrees with the others of its chip or family."""

import itertools
import re

import pytest

from drakkar import catalogue
from drakkar.catalogue import PRECISIONS, Chip

CHIPS = catalogue.chips()
BY_NAME = {chip.name: chip for chip in CHIPS}

# What one device's links carry in one direction, Gbit/s. Export variants have fewer links.
NVLINK = {"NVLink 2": 1200, "NVLink 3": 2400, "NVLink 4": 3600, "NVLink 5": 7200}
CUT = {"A800 SXM4 80GB": 1600, "H800 SXM": 1600}
NICS = {50, 100, 200, 300, 400, 600, 800}

# Chips whose matrix units do twice as much each time a number has half the bits.
DOUBLING = {
    "nvidia": "A10,A30,A40,A100,A800,L4,L40S,H100,H800,H20,H200,GH200,B200,GB200,RTX 6000 Ada,"
    "RTX PRO 6000 Blackwell Workstation",
    "amd": "MI300A,MI300X,MI325X,MI350X,MI355X",
}
FAMILIES = (
    ("A100 SXM4 40GB", "A100 SXM4 80GB", "A100 PCIe 40GB", "A100 PCIe 80GB", "A800 SXM4 80GB"),
    ("H100 SXM", "H200 SXM", "GH200 96GB", "GH200 144GB"),
    ("H100 NVL", "H200 NVL"),
    ("MI300X", "MI325X"),
    ("V100 SXM2 16GB", "V100 SXM2 32GB"),
)


def doubles(chip: Chip) -> bool:
    return any(
        chip.vendor == vendor and (chip.name == name or chip.name.startswith(f"{name} "))
        for vendor, names in DOUBLING.items()
        for name in names.split(",")
    )


def problems(chip: Chip) -> list[str]:
    """What can't be true of a chip by itself."""
    found = []
    peaks, half = chip.tflops, chip.tflops.bf16 or chip.tflops.fp16
    if doubles(chip) and half:
        steps = {"tf32": 0.5, "fp16": 1, "fp8": 2, "int8": 2, "fp4": 4}
        for name, factor in steps.items():
            peak = getattr(peaks, name)
            if peak is not None and abs(peak / half / factor - 1) > 0.02:
                found.append(f"{name} is {peak / half:g} of the 16-bit peak, not {factor}")
    if half and chip.memory_gbs and not 30 <= half * 1000 / chip.memory_gbs <= 700:
        found.append("FLOP per byte of memory")
    if half and chip.tdp_watts and not 0.15 <= half / chip.tdp_watts <= 3.5:
        found.append("TFLOP/s per watt")
    if chip.tdp_watts and not 50 <= chip.tdp_watts <= 1500:
        found.append("watts")
    if chip.memory_bytes and chip.memory_bandwidth:
        seconds = chip.memory_bytes / chip.memory_bandwidth
        if not 0.01 < seconds < 0.13:
            found.append(f"{seconds:.3f} s to read all memory")
    size = re.search(r"\b(\d+)GB", chip.name)
    if size and chip.memory != f"{size[1]}Gi":
        found.append(f"memory is {chip.memory}, by its name {size[1]}Gi")
    if chip.fabric in NVLINK and chip.fabric_gbps != CUT.get(chip.name, NVLINK[chip.fabric]):
        found.append(f"{chip.fabric} has {NVLINK[chip.fabric]} Gbit/s")
    if chip.nic_gbps is not None and chip.nic_gbps not in NICS:
        found.append("there are no such network cards")
    return found


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_the_figures_of_a_chip_agree(chip: Chip) -> None:
    assert problems(chip) == []


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family[0])
def test_chips_of_one_die_have_one_set_of_peaks(family: tuple[str, ...]) -> None:
    for first, other in itertools.combinations([BY_NAME[name].tflops for name in family], 2):
        for name in PRECISIONS:
            a, b = getattr(first, name), getattr(other, name)
            assert a == b or (a and b and abs(a / b - 1) < 0.001), name


def changed(chip: Chip, figure: str, factor: float) -> Chip:
    raw = chip.model_dump()
    if figure == "memory":
        assert chip.memory_bytes is not None
        raw["memory"] = f"{max(1, int(chip.memory_bytes / 2**30 * factor))}Gi"
    else:
        where = raw["tflops"] if figure.startswith("tflops.") else raw
        where[figure.removeprefix("tflops.")] *= factor
    return Chip.model_validate(raw)


SERVERS = [c for c in CHIPS if doubles(c) and c.fabric in NVLINK]


@pytest.mark.parametrize("factor", [0.1, 10])
@pytest.mark.parametrize("chip", SERVERS, ids=lambda chip: chip.name)
def test_a_slipped_digit_is_found_in_any_figure(chip: Chip, factor: float) -> None:
    """These tests would be of no use if they let one pass."""
    for figure in set(chip.figures()) - {"tflops.fp64", "tflops.fp32"}:
        assert problems(changed(chip, figure, factor)), figure


@pytest.mark.parametrize("chip", [c for c in CHIPS if doubles(c)], ids=lambda chip: chip.name)
def test_a_peak_with_sparsity_among_dense_ones_is_found(chip: Chip) -> None:
    known = [name for name in ("tf32", "bf16", "fp16", "fp8", "int8", "fp4")
             if getattr(chip.tflops, name) is not None]  # fmt: skip
    assert len(known) > 1
    for name in known:
        assert problems(changed(chip, f"tflops.{name}", 2)), name


def test_what_was_read_says_where() -> None:
    for key, source in catalogue.sources().items():
        for place in filter(None, source.read.split("; ")):
            assert re.match(r"(github:[\w.-]+/[\w.-]+ \S+|[\w-]+(\.[\w-]+)+)(/| |$)", place), (
                f"{key}: {place}"
            )


def test_most_16_bit_peaks_are_confirmed_and_a_figure_of_an_unread_source_never_is() -> None:
    peaks = [chip for chip in CHIPS if chip.tflops.bf16]
    assert sum(chip.confirmed("tflops.bf16") for chip in peaks) > 0.6 * len(peaks)
    for chip in CHIPS:
        for name in chip.figures():
            read = catalogue.sources()[chip.sources.get(name, chip.source)].read
            assert read or not chip.confirmed(name)
    assert not BY_NAME["H100 SXM"].confirmed("tflops.fp4"), "it has none"
