"""Whatever a tool prints, a parser answers or raises VendorError, soon."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_gpu.devices import (
    ascend,
    cambricon,
    enflame,
    gaudi,
    hygon,
    moorethreads,
    neuron,
    text,
)
from drakkar_gpu.devices.base import VendorError

SAMPLES = Path(__file__).parent / "samples"
TOPOLOGY_OF = ascend.parse_info((SAMPLES / "npu-smi-910b2.txt").read_text())


def topology(output: str):
    return ascend.parse_topology(output, [reading.device for reading in TOPOLOGY_OF])


PARSERS = {
    "npu-smi-910b2.txt": ascend.parse_info,
    "npu-smi-310b.txt": ascend.parse_info,
    "npu-smi-topo.txt": topology,
    "cnmon-info.txt": cambricon.parse_info,
    "efsmi-q.txt": enflame.parse_query,
    "efsmi-q-old.txt": enflame.parse_query,
    "mthreads-gmi.txt": moorethreads.parse_overview,
    "hy-smi.json": hygon.parse,
    "hl-smi.csv": gaudi.parse_query,
    "neuron-ls.json": neuron.parse_list,
}
each = pytest.mark.parametrize("name", sorted(PARSERS))


def survives(name: str, output: bytes | str) -> bool:
    """Whether the parser answers; True or False, but no other exception."""
    plain = output.decode(errors="replace") if isinstance(output, bytes) else output
    try:
        PARSERS[name](plain)
    except VendorError as error:
        assert str(error).strip()
        return False
    return True


@each
def test_every_sample_has_a_parser_that_answers(name):
    assert survives(name, (SAMPLES / name).read_bytes())


def test_no_sample_is_left_out():
    assert {path.name for path in SAMPLES.iterdir()} - {"README.md"} == set(PARSERS)


@each
def test_cut_off_at_any_byte(name):
    whole = (SAMPLES / name).read_bytes()
    answered = [survives(name, whole[:end]) for end in range(len(whole))]
    assert not answered[0]


@each
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_in_places(name, data):
    whole = bytearray((SAMPLES / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(whole) - 1))
        length = data.draw(st.integers(0, 12))
        whole[at : at + length] = data.draw(st.binary(max_size=12))
        if not whole:
            break
    survives(name, bytes(whole))


@each
@given(junk=st.text(max_size=400))
@settings(max_examples=40, deadline=None)
def test_something_else_altogether(name, junk):
    survives(name, junk)


@each
@pytest.mark.parametrize(
    "output",
    [
        "",
        "\n" * 1000,
        "\x00" * 64,
        "9" * 5000,
        "|" * 5000,
        ":" * 5000,
        "[" * 100_000,
        '{"card0": ' * 20_000,
        "Card 0\n" + "    a : 1\n" * 20_000,
        "DEV ID 0\n" + "\t" * 5000 + "a: b\n",
        "NPU0 NPU1\n" + "NPU0 X\n" * 1000,
        '[{"neuron_device": NaN}]',
        '{"card0": {"vram Total Memory (MiB)": "1e999"}}',
        "Ошибка: устройство не найдено",
    ],
    ids=lambda output: repr(output[:16]),
)
def test_known_ways_to_hurt_a_parser(name, output):
    survives(name, output)


@each
def test_a_thousand_times_the_output_is_read_in_time(name):
    survives(name, (SAMPLES / name).read_text(encoding="utf-8") * 1000)


@each
def test_utf16_is_not_taken_for_devices(name):
    whole = (SAMPLES / name).read_text(encoding="utf-8")
    assert not survives(name, whole.encode("utf-16"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["card0", "card1", "neuron_device", "bdf", "memory_size", "connected_to",
                     "numa_node", "PCI Bus", "vram Total Memory (MiB)", "Unique ID"]
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=20,
    )
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_any_json(value):
    output = json.dumps(value)
    survives("hy-smi.json", output)
    survives("neuron-ls.json", output)


@given(st.text(max_size=40))
def test_a_number_is_finite_or_refused(value):
    try:
        found = text.number(value, "x")
    except VendorError as error:
        assert str(error).startswith("x: ")
    else:
        assert found is None or abs(found) < 1e19
