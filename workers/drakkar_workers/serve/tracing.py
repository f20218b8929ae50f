"""Traces of requests by OpenTelemetry, from the router to the engine.

They are off unless the standard variable ``OTEL_EXPORTER_OTLP_ENDPOINT`` says where a collector
takes OTLP over HTTP; the other ``OTEL_`` variables count too. The parent of a span comes with a
request as W3C trace context. Names of attributes: OpenTelemetry's semantic conventions for
generative AI, and vLLM's for latencies. No text of a prompt or an answer is ever among them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_tracer: Final = trace.get_tracer("drakkar")


@contextmanager
def sending(service: str) -> Iterator[None]:
    """Send spans while this lasts, if a variable says where to."""
    if not any(os.environ.get(name) for name in VARIABLES):
        yield
        return
    # The SDK takes half a second to import: only those who trace pay for it.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: service}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


@web.middleware
async def traced(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A span for each request to the API; the others are probes and scrapes."""
    if not request.path.startswith("/v1/"):
        return await handler(request)
    route = request.match_info.route.resource
    path = route.canonical if route is not None and "{path" not in route.canonical else request.path
    with _tracer.start_as_current_span(
        f"{request.method} {path[:128]}",
        propagate.extract(request.headers),
        SpanKind.SERVER,
        {"http.request.method": request.method, "url.path": request.path[:256]},
        record_exception=False,
    ) as span:
        answer = await handler(request)
        span.set_attribute("http.response.status_code", answer.status)
        if answer.status >= 500:
            span.set_status(StatusCode.ERROR)
        return answer


@contextmanager
def attempt(replica: str, revision: str, headers: CIMultiDict[str]) -> Iterator[None]:
    """One try at a replica; ``headers`` tell the replica whose child its span is."""
    with _tracer.start_as_current_span(
        "attempt",
        kind=SpanKind.CLIENT,
        attributes={"drakkar.replica": replica, "drakkar.revision": revision},
        record_exception=False,
    ):
        propagate.inject(headers)
        yield


def generation(model: str, prompt_tokens: int, max_tokens: int, temperature: float) -> Span:
    """The engine's work on one choice; end it with ``generated``."""
    return _tracer.start_span(
        "generate",
        attributes={
            "gen_ai.request.model": model,
            "gen_ai.request.max_tokens": max_tokens,
            "gen_ai.request.temperature": temperature,
            "gen_ai.usage.input_tokens": prompt_tokens,
        },
    )


def generated(
    span: Span, tokens: int, finish: str, *, seconds: float, first: float | None, queued: float
) -> None:
    """End a generation. ``first``: seconds to the first token, None if none came."""
    if span.is_recording():
        span.set_attribute("gen_ai.usage.output_tokens", tokens)
        span.set_attribute("gen_ai.response.finish_reasons", [finish])
        span.set_attribute("gen_ai.latency.e2e", seconds)
        span.set_attribute("gen_ai.latency.time_in_queue", queued)
        if first is not None:
            span.set_attribute("gen_ai.latency.time_to_first_token", first)
        if finish == "abort":
            span.set_status(StatusCode.ERROR, "no answer: refused, failed, or its client left")
    span.end()
