"""The catalogue's figures are plausible, sourced, and found by the names that tools print."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar import catalogue
from drakkar.catalogue import Chip
from drakkar.catalogue.page import accelerators_page

CHIPS = catalogue.chips()
BY_NAME = {chip.name: chip for chip in CHIPS}


def per_chip(chips=CHIPS):
    return pytest.mark.parametrize("chip", chips, ids=lambda chip: chip.name)


@pytest.mark.parametrize(
    ("printed", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "H100 SXM"),
        ("H100 80GB HBM3", "H100 SXM"),
        ("nvidia h100 pcie", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA H200 NVL", "H200 NVL"),
        ("NVIDIA GH200 480GB", "GH200 96GB"),
        ("A100-SXM4-40GB", "A100 SXM4 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("Tesla V100-SXM2-16GB-LS", "V100 SXM2 16GB"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA B300 SXM6 AC", "B300"),
        ("AMD Instinct MI300X VF", "MI300X"),
        ("AMD Instinct MI250X / MI250", "MI250X (GCD)"),
        ("Arcturus GL-XL [Instinct MI100]", "MI100"),
        ("910B3", "Ascend 910B3"),
        ("Ascend910_9392", "Ascend 910C (die)"),
        ("MLU370-X8", "MLU370-X8"),
        ("MTT S4000", "MTT S4000"),
        ("K100_AI", "K100 AI"),
        ("HL-325L", "Gaudi 3"),
        ("TPU v5 lite", "TPU v5e"),
        ("trainium2", "Trainium2"),
        ("cpu", "CPU"),
    ],
)
def test_found_as_printed(printed, name):
    chip = catalogue.find(printed)
    assert chip is not None and chip.name == name


@pytest.mark.parametrize("name", ["", "NVIDIA", "H100", "NVIDIA H1000", "GeForce 256", "*"])
def test_an_unknown_or_vague_name_is_no_chip(name):
    assert catalogue.find(name) is None


@given(st.text(max_size=80))
def test_any_text_can_be_looked_up(text):
    chip = catalogue.find(text)
    assert chip is None or chip in CHIPS


@per_chip()
def test_each_chip_is_found_by_its_own_name_and_patterns(chip):
    assert catalogue.find(chip.name) == chip
    for pattern in chip.match:
        assert catalogue.find(pattern.replace("[_ -]", " ").replace("*", "")) == chip


def test_names_are_unique_and_every_source_is_used():
    assert len(BY_NAME) == len(CHIPS)
    used = set(
        itertools.chain.from_iterable((chip.source, *chip.sources.values()) for chip in CHIPS)
    )
    assert used == set(catalogue.sources())


@per_chip()
def test_ratios_between_precisions(chip: Chip):
    peaks = chip.tflops
    ladder = [("fp32", "tf32"), ("tf32", "bf16"), ("bf16", "fp8"), ("fp8", "fp4"), ("fp64", "fp16")]
    for lower, upper in ladder:
        a, b = getattr(peaks, lower), getattr(peaks, upper)
        if a is not None and b is not None:
            assert b >= a, f"{upper} slower than {lower}"
    if peaks.bf16 and peaks.fp16:
        assert peaks.fp16 / peaks.bf16 in (1, 2)
    half = peaks.bf16 or peaks.fp16
    if half and peaks.fp8:
        assert 0.99 <= peaks.fp8 / half <= 4
    if peaks.fp8 and peaks.fp4:
        assert 0.99 <= peaks.fp4 / peaks.fp8 <= 4.1
    if half and peaks.int8 and chip.name not in ("B300", "GB300"):
        assert 0.99 <= peaks.int8 / half <= 4.1


@per_chip()
def test_bandwidths_and_power_are_in_the_range_of_real_chips(chip: Chip):
    half = chip.tflops.bf16 or chip.tflops.fp16
    if chip.memory_gbs is not None:
        assert 200 <= chip.memory_gbs <= 10_000
        assert chip.memory_bytes is not None
        assert 0.005 < chip.memory_bytes / chip.memory_bandwidth < 0.15, "seconds to read it all"
        if half:
            assert 30 <= half * 1000 / chip.memory_gbs <= 1000, "FLOP per byte"
        if chip.fabric_gbps is not None:
            assert chip.fabric_gbps < 8 * chip.memory_gbs
    if chip.fabric_gbps is not None and chip.nic_gbps is not None:
        assert chip.nic_gbps < chip.fabric_gbps
    if chip.tdp_watts is not None:
        assert 50 <= chip.tdp_watts <= 2000
        if half:
            assert 0.15 <= half / chip.tdp_watts <= 3.5, "TFLOP/s per watt"


def test_units_of_the_properties():
    chip = BY_NAME["H100 SXM"]
    assert chip.flops() == 989e12 and chip.flops("fp8") == 1979e12 and chip.flops("fp4") is None
    assert chip.memory_bytes == 80 * 2**30
    assert chip.memory_bandwidth == 3.35e12
    assert BY_NAME["CPU"].flops() is None and BY_NAME["CPU"].memory_bytes is None


GOOD = """
vendor: acme
sources: {a: {title: Data sheet, date: 2024-05, kind: datasheet}}
chips: [{name: One, match: [One], year: 2024, tflops: {bf16: 10}, source: a}]
"""


def test_a_file_is_read():
    (chip,), sources = catalogue.load(GOOD)
    assert chip.vendor == "acme" and chip.source == "acme/a"
    assert sources["acme/a"].date == "2024-05"


def test_a_figure_is_confirmed_where_its_source_was_read_and_had_it():
    ((unread,), _) = catalogue.load(GOOD)
    assert not unread.confirmed("tflops.bf16")
    read = GOOD.replace("datasheet}", "datasheet, read: acme.example/one}")
    ((chip,), _) = catalogue.load(read)
    assert chip.confirmed("tflops.bf16")
    assert not chip.confirmed("tflops.fp8"), "there is none"
    lacking = read.replace("source: a}]", "source: a, unconfirmed: [tflops.bf16]}]")
    ((chip,), _) = catalogue.load(lacking)
    assert not chip.confirmed("tflops.bf16")


def test_the_page_marks_what_is_unconfirmed():
    page = accelerators_page()
    assert " 989 " in page and "989?" not in page
    assert " 181? " in page, "the L40's"
    assert "; read at docs.cloud.google.com/tpu/docs/v5e" in page


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("source: a}", "source: b}", "One names sources not listed: ['b']"),
        ("bf16: 10", "bf16: -1", "greater than 0"),
        ("bf16: 10", "bf17: 10", "bf17"),
        ("source: a}", "source: a, sources: {tdp_watts: a}}", "have no figure"),
        ("source: a}", "source: a, unconfirmed: [nic_gbps]}", "unconfirmed names ['nic_gbps']"),
        ("source: a}", "source: a, fabric_gbps: 100}", "not what the fabric is"),
        ("source: a}", "source: a, memory: many}", "not a quantity"),
        ("year: 2024", "year: 1024", "2015"),
        ("kind: datasheet", "kind: rumour", "rumour"),
        ("vendor: acme", "seller: acme", "vendor"),
        ("chips: [", "chips: 3 # [", "x.yaml"),
        ("chips: [", "chips: {{ [", "x.yaml"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(old, new, complaint):
    assert old in GOOD
    with pytest.raises(ValueError, match=r"^x.yaml: ") as error:
        catalogue.load(GOOD.replace(old, new), name="x.yaml")
    assert complaint in str(error.value)
