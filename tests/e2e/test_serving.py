"""InferenceServices end to end: a model answers, scales to zero and back, survives, is updated."""

import pytest

from drakkar.local.runtime import python_in_pods
from support.lab import Lab
from support.service_lab import ServiceLab, condition

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

FAULTY = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def do_POST(self):
        self.send_response(500); self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
"""A server that is ready and fails at every request."""


@pytest.fixture
def services(lab: Lab) -> ServiceLab:
    return ServiceLab(lab)


def test_load_raises_replicas_and_they_fall_to_zero_and_back(services: ServiceLab) -> None:
    services.submit(
        "gpt",
        scaling={
            "min": 0,
            "max": 2,
            "target": 2,
            "stableSeconds": 6,
            "panicSeconds": 2,
            "behavior": {"scaleDownDelaySeconds": 2, "scaleToZeroSeconds": 4},
        },
        rollout={"drainSeconds": 30},
    )
    services.ready("gpt")
    with services.load("gpt", clients=6) as tally:
        services.until("gpt", lambda s: s.get("readyReplicas") == 2, "load raises the replicas")
    assert tally.whole > 0
    assert (tally.errors, tally.silent) == ([], [])
    services.until("gpt", lambda s: s.get("desiredReplicas") == 0, "without load there is none")
    services.lab.until(lambda: not services.servers("gpt"), 120, "the pods are gone")
    # Held by the router until the first replica is there.
    answer = services.client("gpt").completions.create(model="gpt", prompt="And", max_tokens=4)
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_bad_canary_is_taken_back_and_a_dead_server_tells_its_clients(
    services: ServiceLab,
) -> None:
    services.submit(
        "chat",
        replicas=1,
        canary={"weight": 50, "minRequests": 10, "seconds": 600},
        rollout={"drainSeconds": 5},
    )
    services.ready("chat")
    stable = services.status("chat")["stableRevision"]
    with services.load("chat", clients=2) as tally:
        killed = services.lab.until(lambda: tally.whole, 60, "requests are answered")
        assert killed
        assert services.kill_engines("chat") > 0
        services.until("chat", lambda s: s.get("restartCount", 0) > 0, "the restart is told")
        services.ready("chat")
    assert tally.silent == []
    services.lab.api.patch(
        f"{services.services}/chat",
        {
            "spec": {
                "runtime": {
                    "name": "custom",
                    "image": "localhost/drakkar:dev",
                    "command": [python_in_pods(), "-c", FAULTY],
                },
                "template": {"spec": {"runtimeClassName": "drakkar-local"}},
            }
        },
    )
    with services.load("chat", clients=2) as tally:
        services.until(
            "chat",
            lambda s: (s.get("canary") or {}).get("state") == "RolledBack",
            "the canary is taken back",
        )
    status = services.until(
        "chat",
        lambda s: len(s["members"]) == 1 and s,
        "the canary's replica is gone",
    )
    assert status["stableRevision"] == stable
    assert condition(status, "Stalled") == "True"
    assert "requests failed" in status["canary"]["message"]
    assert services.client("chat").completions.create(model="chat", prompt="And", max_tokens=4)
