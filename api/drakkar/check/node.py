"""What a verdict means for a node's object: its condition and its taint. Pure."""

from collections.abc import Mapping
from typing import Any

from drakkar.check.judge import Verdict
from drakkar.constants import CONDITION_CHECK, TAINT_CHECK

MESSAGE_LIMIT = 1024


def condition(
    verdict: Verdict, now: str, before: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """The node's condition. ``now`` is an RFC 3339 time, ``before`` the one that it has."""
    status = "True" if verdict.passed else "False"
    same = before is not None and before.get("status") == status
    since = str((before or {}).get("lastTransitionTime") or now) if same else now
    findings = "; ".join(finding.message for finding in verdict.findings)
    return {
        "type": CONDITION_CHECK,
        "status": status,
        "reason": "Passed" if verdict.passed else verdict.findings[0].reason,
        "message": (findings or verdict.summary)[:MESSAGE_LIMIT],
        "lastTransitionTime": since,
        "lastHeartbeatTime": now,
    }


def taints(node: Mapping[str, Any], verdict: Verdict) -> list[dict[str, Any]] | None:
    """The taints that the node shall have; None if it has them."""
    there = list((node.get("spec") or {}).get("taints") or ())
    others = [taint for taint in there if taint.get("key") != TAINT_CHECK]
    wanted = others
    if not verdict.passed:
        value = verdict.findings[0].reason
        mine = {"key": TAINT_CHECK, "value": value, "effect": "NoSchedule"}
        same = next((t for t in there if all(t.get(k) == v for k, v in mine.items())), None)
        wanted = [*others, same or mine]
    return None if wanted == there else wanted
