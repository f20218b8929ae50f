"""The metrics of accelerators carry the job and rank that a real kubelet gave them to."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from drakkar.local.install import DEVICES_NAMESPACE
from support.lab import Lab, sleeper

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

RESOURCE = "drakkar.dev/gpu"
PORT = 8601


def scraped(lab: Lab) -> list[dict[str, str]]:
    """Labels of drakkar_device_healthy of all nodes, scraped as Prometheus would."""
    found = []
    for pod in lab.api.list(f"/api/v1/namespaces/{DEVICES_NAMESPACE}/pods"):
        address = pod["status"].get("podIP")
        if address is None or "deletionTimestamp" in pod["metadata"]:
            continue
        try:
            answer = httpx.get(f"http://{address}:{PORT}/metrics", trust_env=False, timeout=10)
        except httpx.HTTPError:
            return []
        for family in text_string_to_metric_families(answer.text):
            if family.name == "drakkar_device_healthy":
                found += [sample.labels for sample in family.samples]
    return found


def test_a_device_is_exported_with_its_job_and_rank(lab: Lab) -> None:
    lab.submit(
        "gpus",
        replicas=2,
        processesPerReplica=2,
        accelerators={"resource": RESOURCE, "count": 2},
        template=sleeper(600, cpu="50m"),
    )
    lab.phase("gpus", "Running")

    def ranks() -> list[tuple[str, str, str]] | None:
        mine = [x for x in scraped(lab) if x["job"] == "gpus" and x["namespace"] == lab.namespace]
        found = sorted((x["pod"], x["replica"], x["rank"]) for x in mine)
        return found if len(found) == 4 else None

    assert lab.until(ranks, 120, "all four devices are exported with their job") == [
        ("gpus-0", "0", "0"),
        ("gpus-0", "0", "1"),
        ("gpus-1", "1", "2"),
        ("gpus-1", "1", "3"),
    ]
    lab.delete("gpus")
    lab.until(
        lambda: (found := scraped(lab)) and all(x["job"] != "gpus" for x in found),
        120,
        "devices of a job that is gone are exported as free",
    )
