"""InferenceServices end to end: a model answers, scales to zero and back, survives, is updated."""

import pytest

from support.lab import Lab, pretrain
from support.processes import mapped
from support.service_lab import ServiceLab, condition, program

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

PAIR = """
import http.server, json, os, signal, socket, sys, threading, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
me, leader = os.environ["DRAKKAR_POD_NAME"], (os.environ["DRAKKAR_LEADER"], 20000)
if os.environ["DRAKKAR_REPLICA_INDEX"] != "0":
    while True:
        try:
            link = socket.create_connection(leader, 5)
            break
        except OSError:
            time.sleep(0.2)
    link.settimeout(None)
    link.sendall(me.encode())
    link.recv(1)
    sys.exit("the leader is gone")
link, _ = socket.create_server(("", 20000)).accept()
names = f"{me} {link.recv(100).decode()}"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"index": 0, "text": names, "finish_reason": "stop"}
        self.answer({"id": "x", "object": "text_completion", "choices": [choice]})
    def answer(self, what):
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("", 8000), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
link.recv(1)
sys.exit("a rank is gone")
"""
"""Two ranks that meet before they answer with both their names, and end with each other."""


@pytest.fixture
def services(lab: Lab) -> ServiceLab:
    return ServiceLab(lab)


def test_a_jobs_checkpoint_is_served_under_load_updated_and_scaled_to_zero_and_back(
    services: ServiceLab,
) -> None:
    # The service is there first, and waits for what it serves.
    services.submit(
        "gpt",
        model={
            "trainingJob": {"name": "train"},
            "cache": {"claimName": "runs", "path": "cache"},
        },
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
    # Heads of 16, which the kernels take: only their weights are packed.
    recipe = pretrain(10, model={"layers": 2, "hidden": 64, "heads": 4})
    services.lab.submit(
        "train", replicas=2, recipe=recipe, checkpoint={"everySteps": 10, "keep": 1}
    )
    # With or without a replica: who asks is held until there is one.
    services.until("gpt", lambda s: condition(s, "Ready") == "True", "the service is ready")
    client = services.client("gpt")
    assert services.status("gpt")["revisions"][0]["modelPath"].startswith("train/")
    told = client.chat.completions.create(
        model="gpt", messages=[{"role": "user", "content": "Who was Noah?"}], max_tokens=4
    )
    assert told.choices[0].message.content is not None
    assert told.usage is not None
    assert told.usage.completion_tokens > 0
    before = services.status("gpt")["stableRevision"]
    with services.load("gpt", clients=6) as tally:
        services.change("gpt", runtime={"args": ["--max-sequences=32"]})
        services.until(
            "gpt",
            lambda s: (
                s.get("readyReplicas") == 2
                and [one["state"] for one in s["members"]] == ["Ready", "Ready"]
                and before not in {one["revision"] for one in s["members"]}
            ),
            "two replicas of the new revision have taken over",
        )
        # Weights are in memory once, whoever uses them.
        files = [mapped(pod["metadata"]["uid"], "weights.bin") for pod in services.servers("gpt")]
        assert len(files) == 2
        assert len(files[0]) == 1
        assert files[0] == files[1]
    assert tally.whole > 0
    assert (tally.broken, tally.errors, tally.silent) == ([], [], [])
    with services.load("gpt", clients=2) as tally:
        services.lab.until(lambda: tally.whole, 120, "requests are answered")
        assert services.kill_routers("gpt") > 0
        services.lab.until(lambda: tally.broken or tally.errors, 120, "its clients notice")
        done = tally.whole
        services.lab.until(lambda: tally.whole > done, 120, "the next router answers")
    assert tally.silent == []
    services.until("gpt", lambda s: s.get("desiredReplicas") == 0, "without load there is none")
    services.lab.until(lambda: not services.servers("gpt"), 120, "the pods are gone")
    # Held by the router until the first replica is there.
    answer = client.completions.create(model="gpt", prompt="And", max_tokens=4)
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
    # Only the API's own errors: the router lives.
    assert (tally.broken, tally.silent) == ([], [])
    services.change("chat", **program(FAULTY))
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


def test_a_replica_of_two_pods_is_placed_whole_and_restarts_whole(services: ServiceLab) -> None:
    # Too much for both on one node, so that they meet over the network.
    cpu = min(services.lab.free_cpu().values()) * 6 // 10
    services.submit(
        "pair",
        **program(PAIR),
        parallelism={"tensor": 2, "pods": 2},
        topology={"required": "rack"},
        resources={"requests": {"cpu": f"{cpu}m", "memory": "64Mi"}},
    )
    services.ready("pair")
    client = services.client("pair")

    def both() -> str:
        return client.completions.create(model="pair", prompt="Who?").choices[0].text

    assert both() == "pair-serve-0-0 pair-serve-0-1"
    first = services.servers("pair")
    places = services.status("pair")["members"][0]["placement"]
    assert places["level"] == "rack"
    assert len(set(places["nodes"])) == 2
    assert sorted(pod["spec"]["nodeName"] for pod in first) == sorted(places["nodes"])
    services.lab.delete_pod("pair-serve-0-1")

    def replaced() -> bool:
        uids = {pod["metadata"]["uid"] for pod in services.servers("pair")}
        return len(uids) == 2 and uids.isdisjoint(pod["metadata"]["uid"] for pod in first)

    services.lab.until(replaced, 240, "both pods are others")
    services.ready("pair")
    assert both() == "pair-serve-0-0 pair-serve-0-1"
    (restart,) = services.status("pair")["restarts"]
    assert (restart["scope"], restart["replica"]) == ("gang", 1)
