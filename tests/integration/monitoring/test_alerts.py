"""Alerts fire for what they are meant for: promtool's own tests, and a runbook for each."""

import subprocess
from pathlib import Path

import pytest
import yaml

from support.prometheus import RULES

ROOT = Path(__file__).parents[3]
CASES = Path(__file__).parent / "alerts.yaml"
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_sound(debian_prometheus: None) -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))


def test_alerts_fire_when_they_should(debian_prometheus: None, tmp_path: Path) -> None:
    cases = tmp_path / "alerts.yaml"
    cases.write_text(CASES.read_text().replace("[RULES]", f"['{RULES}']"))
    assert "SUCCESS" in promtool("test", "rules", str(cases))


def test_every_alert_is_seen_firing_and_silent() -> None:
    checks = [
        check
        for case in yaml.safe_load(CASES.read_text())["tests"]
        for check in case.get("alert_rule_test", ())
    ]
    assert {each["alertname"] for each in checks if each["exp_alerts"]} == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_runbook(name: str) -> None:
    page = (ROOT / "docs" / "runbooks" / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {name}\n")
    for part in ("## What it means", "## Look", "## Do"):
        assert part in page, part
    assert ALERTS[name]["labels"]["severity"] in ("warning", "critical")
    assert ALERTS[name]["annotations"]["runbook_url"].endswith(f"/runbooks/{name}")
