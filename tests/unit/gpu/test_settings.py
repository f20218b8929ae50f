"""Settings of the daemon: what is wrong with them is said by field."""

from pathlib import Path

import pytest

from drakkar_gpu.nics import network_cards
from drakkar_gpu.settings import Settings, SettingsError, load


def test_an_empty_file_means_real_devices(tmp_path: Path) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text("")
    assert load(file) == Settings()
    assert Settings().simulated is None


def test_everything_can_be_set(tmp_path: Path) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text(
        "simulated: {model: X, count: 2, memoryGib: 16, fabric: pairs, numaNodes: 1}\n"
        "health: {periodSeconds: 1, settleSeconds: 2, patienceSeconds: 3}\n"
        "shares: {devices: [0], each: 4}\n"
        "mounts: [{host: /usr/lib/driver, container: /usr/lib/driver}]\n"
        "cdi: true\ndra: true\n"
    )
    found = load(file)
    assert found.simulated is not None
    assert found.simulated.memory_gib == 16
    assert found.shares.each == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("simulated: {count: 0}", r"simulated\.count: .*greater than or equal to 1, found 0"),
        ("simulatd: {}", "simulatd: Extra inputs"),
        ("health: {periodSeconds: 0}", r"health\.periodSeconds"),
        ("mounts: [{host: x, container: /x}]", r"mounts\.0\.host"),
        ("[", "can't be read"),
        ("3", "devices.yaml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message):
        load(file)


def test_network_cards_are_in_order_of_their_slots(tmp_path: Path) -> None:
    for name, slot, numa in (("mlx5_10", "0000:0a:00.0", "0"), ("mlx5_2", "0000:9a:00.0", "-1")):
        device = tmp_path / "devices" / slot
        device.mkdir(parents=True)
        (device / "numa_node").write_text(numa)
        card = tmp_path / "infiniband" / name
        card.mkdir(parents=True)
        (card / "device").symlink_to(device)
    cards = network_cards(tmp_path / "infiniband")
    assert [(card.name, card.numa, card.rail) for card in cards] == [
        ("mlx5_10", 0, 0),
        ("mlx5_2", None, 1),
    ]
    assert network_cards(tmp_path / "none") == ()
