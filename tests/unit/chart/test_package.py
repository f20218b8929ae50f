"""What a registry shows of the chart: its README, the kinds it names, and values that turn all on."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from drakkar.v1alpha1 import KINDS
from support.chart import CHART, CI, PAGE, page

METADATA = yaml.safe_load((CHART / "Chart.yaml").read_text())


def test_the_readme_is_made_of_the_values() -> None:
    assert PAGE.read_text() == page(), "make generate"


def test_every_value_is_described_where_it_stands() -> None:
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        for line in PAGE.read_text().partition("## Values")[2].splitlines()[4:]
        if line.startswith("|")
    ]
    assert len(rows) > 80
    assert not [row[0] for row in rows if len(row) != 4 or not row[3]]


def test_artifact_hub_is_told_the_kinds_that_are_installed() -> None:
    told = yaml.safe_load(METADATA["annotations"]["artifacthub.io/crds"])
    installed = [yaml.safe_load(path.read_text()) for path in (CHART / "crds").glob("*.yaml")]
    assert {(each["kind"], each["version"], each["name"]) for each in told} == {
        (crd["spec"]["names"]["kind"], version["name"], crd["metadata"]["name"])
        for crd in installed
        for version in crd["spec"]["versions"]
    }


def test_artifact_hub_shows_objects_that_are_accepted() -> None:
    models = {model.KIND.name: model for model in KINDS}
    shown = yaml.safe_load(METADATA["annotations"]["artifacthub.io/crdsExamples"])
    assert shown
    for each in shown:
        models[each["kind"]].model_validate(each)


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem)
def test_each_way_to_install_is_linted(helm: Callable[..., Any], values: Path) -> None:
    answer = helm("lint", "--strict", str(CHART), "--values", str(values))
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_one_of_them_makes_every_template(render: Callable[..., Any]) -> None:
    made = {(each["kind"], each["metadata"]["name"]) for each in render({}, "-f", str(CI[0]))}
    more = {(each["kind"], each["metadata"]["name"]) for each in render({}, "-f", str(CI[1]))}
    kinds = {kind for kind, _ in made | more}
    assert {"DaemonSet", "DeviceClass", "PrometheusRule", "PodMonitor", "ServiceMonitor"} <= kinds
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        assert {(kind, "drakkar-operator"), (kind, "drakkar-server")} <= made


def test_the_chart_is_without_what_only_tests_use(helm: Callable[..., Any], tmp_path: Path) -> None:
    answer = helm("package", str(CHART), "--destination", str(tmp_path))
    assert answer.returncode == 0, answer.stderr
    (archive,) = tmp_path.glob("*.tgz")
    with tarfile.open(archive) as file:
        names = file.getnames()
    assert "drakkar/README.md" in names
    assert "drakkar/crds/queues.drakkar.dev.yaml" in names
    assert not [name for name in names if "/ci/" in name or name.endswith(".gotmpl")]
