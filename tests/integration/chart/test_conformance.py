"""What the chart makes is what this Kubernetes and the Prometheus operator accept: kubeconform."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from drakkar.local import Cluster
from drakkar.local.build import Programs, ensure_programs
from drakkar.local.progress import Silent
from support import schemas
from support.chart import CHART, CI

pytestmark = pytest.mark.cluster

WAYS = {
    "defaults": [],
    "local": ["--values", str(CHART / "values-local.yaml")],
    **{path.stem: ["--values", str(path)] for path in CI},
}


@pytest.fixture(scope="module")
def programs() -> Programs:
    return ensure_programs(Silent(), ["helm", "kubeconform"])


@pytest.fixture(scope="module")
def location(
    cluster: Cluster, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of schemas: those of the cluster, of the Prometheus operator and of Drakkar."""
    folder = tmp_path_factory.mktemp("schemas")
    with cluster.api() as api:
        openapi = api.get("/openapi/v2")
    crds = [yaml.safe_load(path.read_text()) for path in (CHART / "crds").glob("*.yaml")]
    text = programs.monitoring_definitions.read_text()
    monitoring = [each for each in yaml.safe_load_all(text) if each]
    schemas.write(folder, openapi, [*monitoring, *crds])
    return folder


def conform(programs: Programs, location: Path, text: str) -> list[dict[str, str]]:
    """What is wrong, by kubeconform's own report."""
    where = f"{location}/{schemas.LOCATION}"
    done = subprocess.run(
        [programs.kubeconform, "-strict", "-output=json", "-schema-location", where],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)
    found: list[dict[str, str]] = report["resources"]
    assert bool(found) == bool(done.returncode), done.stderr
    return found


def test_every_way_to_install_conforms(programs: Programs, location: Path) -> None:
    for name, flags in WAYS.items():
        made = subprocess.run(
            [programs.helm, "template", "drakkar", CHART, *flags],
            capture_output=True,
            text=True,
            check=True,
        )
        assert conform(programs, location, made.stdout) == [], name


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: two}", "replicas"),
        ("apiVersion: v1\nkind: Service\nspec: {port: []}", "port"),
        (
            "apiVersion: monitoring.coreos.com/v1\nkind: PodMonitor\nspec: {selectors: {}}",
            "selector",
        ),
        ("apiVersion: drakkar.dev/v1alpha1\nkind: Queue\nspec: {quotas: {}}", "quotas"),
    ],
)
def test_what_does_not_conform_is_found(
    programs: Programs, location: Path, text: str, word: str
) -> None:
    (wrong,) = conform(programs, location, text)
    assert word in wrong["msg"]
