"""Spans of a request on its way through router and engine, as a collector receives them."""

import gzip
import queue
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.serving import DEADLINE, RouterProcess, Server

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class FixedRouter(RouterProcess):
    """Routes to one server, without an operator."""

    def __init__(self, server):
        command = [sys.executable, "-m", "drakkar_workers.serve.router", "--host", "127.0.0.1"]
        self._start([*command, "--port", "0", "--control-port", "0", "--replica", server.url])


@pytest.fixture
def spans(monkeypatch):
    """Spans that arrive at a collector, by (service, name of the span)."""
    found = queue.Queue()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {one.key: one.value.string_value for one in group.resource.attributes}
                for scope in group.scope_spans:
                    for span in scope.spans:
                        found.put((names["service.name"], span))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    yield found
    server.shutdown()
    server.server_close()


def told(span):
    return {one.key: one.value for one in span.attributes}


def test_a_request_is_one_trace_from_client_to_engine(tiny, spans):
    arguments = ("--name", "tiny", "--cache-gib", "0.01", "--threads", "1", "--drain-delay", "0")
    with Server(tiny, *arguments) as engine, FixedRouter(engine.started()) as router:
        router.started()
        body = {"prompt": "a secret thought", "max_tokens": 5, "ignore_eos": True}
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        assert router.send("/v1/completions", body, headers=headers)[0] == 200
        assert engine.send("/health")[0] == 200
        got = {}
        while len(got) < 4:
            service, span = spans.get(timeout=DEADLINE)
            got[service, span.name] = span
        for process in (router, engine):
            process.terminate()
            assert process.process.wait(DEADLINE) == 0
    chain = [
        ("drakkar-router", "POST /v1/completions"),
        ("drakkar-router", "attempt"),
        ("drakkar-engine", "POST /v1/completions"),
        ("drakkar-engine", "generate"),
    ]
    assert set(got) == set(chain), "probes are not traced"
    parent = PARENT
    for name in chain:
        assert got[name].trace_id.hex() == TRACE
        assert got[name].parent_span_id.hex() == parent
        parent = got[name].span_id.hex()
    generate = told(got[chain[3]])
    assert generate["gen_ai.request.model"].string_value == "tiny"
    assert generate["gen_ai.usage.output_tokens"].int_value == 5
    latency = generate["gen_ai.latency.time_to_first_token"].double_value
    assert 0 < latency <= generate["gen_ai.latency.e2e"].double_value
    assert not any("secret" in str(span) for span in got.values())


def test_without_a_collector_nothing_of_the_sdk_is_loaded():
    code = (
        "import sys\nfrom drakkar_workers.serve.tracing import sending\n"
        "with sending('x'): pass\nprint('opentelemetry.sdk.trace' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "False\n"
