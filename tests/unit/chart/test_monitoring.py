"""Dashboards, rules and monitors of the chart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from drakkar.constants import LABEL_ROLE, ROUTER_ROLE

Object = dict[str, Any]
Render = Callable[..., list[Object]]
FILES = Path(__file__).parents[3] / "charts" / "drakkar" / "files"


def of(objects: list[Object], kind: str) -> list[Object]:
    return [item for item in objects if item["kind"] == kind]


def test_nothing_of_it_by_default(render: Render) -> None:
    kinds = {item["kind"] for item in render()}
    assert not kinds & {"ConfigMap", "PrometheusRule", "PodMonitor", "ServiceMonitor"}


def test_each_dashboard_is_a_config_map_that_the_sidecar_finds(render: Render) -> None:
    maps = of(render({"dashboards": {"enabled": True, "namespace": "monitoring"}}), "ConfigMap")
    found = {name: text for each in maps for name, text in each["data"].items()}
    assert set(found) == {path.name for path in (FILES / "dashboards").glob("*.json")}
    for name, text in found.items():
        assert json.loads(text) == json.loads((FILES / "dashboards" / name).read_text())
    for each in maps:
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert each["metadata"]["namespace"] == "monitoring"
    assert len({each["metadata"]["name"] for each in maps}) == len(maps)


def test_dashboards_without_labels_and_annotations(render: Render) -> None:
    bare = {"labels": {"grafana_dashboard": None}, "annotations": {"grafana_folder": None}}
    (first, *_) = of(render({"dashboards": {"enabled": True, **bare}}), "ConfigMap")
    assert "grafana_dashboard" not in first["metadata"]["labels"]


def test_the_rules_are_those_that_were_tested(render: Render) -> None:
    labels = {"release": "prometheus"}
    (rule,) = of(render({"prometheusRule": {"enabled": True, "labels": labels}}), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((FILES / "rules.yaml").read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"


def test_runbooks_are_where_values_say(render: Render) -> None:
    values = {"prometheusRule": {"enabled": True, "runbooks": "https://docs.example/runbooks"}}
    (rule,) = of(render(values), "PrometheusRule")
    urls = [
        (each["alert"], each["annotations"]["runbook_url"])
        for group in rule["spec"]["groups"]
        for each in group["rules"]
        if "alert" in each
    ]
    assert urls
    assert all(url == f"https://docs.example/runbooks/{name}" for name, url in urls)


def test_series_of_all_components_name_a_job_alike(render: Render) -> None:
    """The operator and the daemon name it themselves, agents get it from their pod."""
    objects = render({"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}})
    (service,) = of(objects, "ServiceMonitor")
    assert all(each["honorLabels"] for each in service["spec"]["endpoints"])
    monitors = {each["metadata"]["name"]: each for each in of(objects, "PodMonitor")}
    pods = monitors["drakkar-training"]
    (endpoint,) = pods["spec"]["podMetricsEndpoints"]
    assert {each["targetLabel"]: each["sourceLabels"] for each in endpoint["relabelings"]} == {
        name: [f"__meta_kubernetes_pod_label_drakkar_dev_{name}"]
        for name in ("job", "replica", "queue")
    }


def test_servers_and_routers_are_scraped_where_they_tell(render: Render) -> None:
    objects = render({"podMonitor": {"enabled": True}, "watchNamespaces": ["ml"]})
    monitors = {each["metadata"]["name"]: each["spec"] for each in of(objects, "PodMonitor")}
    for name, port in (("drakkar-servers", "http"), ("drakkar-routers", "control")):
        (endpoint,) = monitors[name]["podMetricsEndpoints"]
        assert endpoint["port"] == port
        assert endpoint["relabelings"][0]["targetLabel"] == "service"
        assert monitors[name]["namespaceSelector"] == {"matchNames": ["ml"]}
    wanted = monitors["drakkar-routers"]["selector"]["matchLabels"]
    assert wanted == {LABEL_ROLE: ROUTER_ROLE}


def test_the_web_server_is_scraped_through_its_service(render: Render) -> None:
    objects = render({"serviceMonitor": {"enabled": True}, "server": {"enabled": True}})
    monitors = {each["metadata"]["name"]: each["spec"] for each in of(objects, "ServiceMonitor")}
    services = {each["metadata"]["name"]: each for each in of(objects, "Service")}
    wanted = monitors["drakkar-server"]["selector"]["matchLabels"]
    found = [
        name
        for name, each in services.items()
        if wanted.items() <= each["metadata"]["labels"].items()
    ]
    assert found == ["drakkar-server"]
    assert services["drakkar-server"]["spec"]["ports"][0]["name"] == "http"
