"""A served model: latencies, queue, cache, errors; vLLM's metric names, so its servers show too."""

from drakkar_dashboards.model import Dashboard, Panel, Query, Row, Variable, q

MODEL = 'namespace=~"$namespace",service=~"$service",model_name=~"$model"'
ROUTER = 'namespace=~"$namespace",service=~"$service"'
WINDOW = "[$__rate_interval]"


def quantiles(name: str, selector: str, by: str = "") -> tuple[Query, ...]:
    """Median, 95th and 99th percentile of a histogram."""
    labels = f"le, {by}" if by else "le"
    prefix = f"{{{{{by}}}}}, " if by else ""
    return tuple(
        q(
            f"histogram_quantile({share}, sum by ({labels}) "
            f"(rate({name}_bucket{{{selector}}}{WINDOW})))",
            f"{prefix}{word}",
        )
        for share, word in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))
    )


def rate(name: str, selector: str = MODEL, by: str = "") -> str:
    """Events per second."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({name}{{{selector}}}{WINDOW}))"


BOARD = Dashboard(
    uid="drakkar-serving",
    title="Drakkar / Inference service",
    description="Latencies, queue, cache and errors of served models and of the routers before them.",
    variables=(
        Variable("namespace", "Namespace", "vllm:num_requests_running", "namespace"),
        Variable(
            "service",
            "Service",
            'vllm:num_requests_running{namespace=~"$namespace"}',
            "service",
        ),
        Variable(
            "model",
            "Model",
            'vllm:num_requests_running{namespace=~"$namespace",service=~"$service"}',
            "model_name",
        ),
    ),
    rows=(
        Row(
            "What clients see",
            (
                Panel(
                    "Time to first token",
                    "s",
                    quantiles("vllm:time_to_first_token_seconds", MODEL),
                ),
                Panel(
                    "Time per output token",
                    "s",
                    quantiles("vllm:inter_token_latency_seconds", MODEL),
                    help="Between two tokens of a stream.",
                ),
                Panel(
                    "Whole answers",
                    "s",
                    quantiles("vllm:e2e_request_latency_seconds", MODEL),
                ),
                Panel(
                    "Requests that ended",
                    "reqps",
                    (
                        q(
                            rate("vllm:request_success_total", by="finished_reason"),
                            "{{finished_reason}}",
                        ),
                    ),
                ),
                Panel(
                    "Requests that were refused",
                    "reqps",
                    (q(rate("drakkar:requests_refused_total", by="status"), "{{status}}"),),
                ),
                Panel(
                    "Tokens",
                    "cps",
                    (
                        q(rate("vllm:prompt_tokens_total"), "prompt"),
                        q(rate("vllm:generation_tokens_total"), "generated"),
                    ),
                ),
            ),
        ),
        Row(
            "Engine",
            (
                Panel(
                    "Requests",
                    "short",
                    (
                        q(f"sum(vllm:num_requests_running{{{MODEL}}})", "running"),
                        q(f"sum(vllm:num_requests_waiting{{{MODEL}}})", "waiting"),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Cache of keys and values",
                    "percentunit",
                    (q(f"max by (pod) (vllm:kv_cache_usage_perc{{{MODEL}}})", "{{pod}}"),),
                    top=1,
                    help="At 100 % sequences give up their blocks and are computed again.",
                ),
                Panel(
                    "Prefix cache hits",
                    "percentunit",
                    (
                        q(
                            f"{rate('vllm:prefix_cache_hits_total')} / "
                            f"({rate('vllm:prefix_cache_queries_total')} > 0)",
                            "of prompt tokens",
                        ),
                    ),
                    top=1,
                ),
                Panel(
                    "Time in the queue", "s", quantiles("vllm:request_queue_time_seconds", MODEL)
                ),
                Panel("Prefill", "s", quantiles("vllm:request_prefill_time_seconds", MODEL)),
                Panel("Decode", "s", quantiles("vllm:request_decode_time_seconds", MODEL)),
                Panel(
                    "Sequences that gave up their blocks",
                    "cps",
                    (q(rate("vllm:num_preemptions_total"), "preemptions"),),
                ),
                Panel(
                    "Guesses that were right",
                    "percentunit",
                    (
                        q(
                            f"{rate('vllm:spec_decode_num_accepted_tokens_total')} / "
                            f"({rate('vllm:spec_decode_num_draft_tokens_total')} > 0)",
                            "of guessed tokens",
                        ),
                    ),
                    top=1,
                ),
                Panel(
                    "Size of requests",
                    "short",
                    (
                        q(
                            f"{rate('vllm:request_prompt_tokens_sum')} / "
                            f"({rate('vllm:request_prompt_tokens_count')} > 0)",
                            "prompt, mean",
                        ),
                        q(
                            f"{rate('vllm:request_generation_tokens_sum')} / "
                            f"({rate('vllm:request_generation_tokens_count')} > 0)",
                            "answer, mean",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Routers and revisions",
            (
                Panel(
                    "Attempts by revision",
                    "reqps",
                    (q(rate("drakkar:router_requests_total", ROUTER, "revision"), "{{revision}}"),),
                    help="A canary and the stable revision beside each other.",
                ),
                Panel(
                    "Failed attempts by revision",
                    "percentunit",
                    (
                        q(
                            f"{rate('drakkar:router_errors_total', ROUTER, 'revision')} / "
                            f"({rate('drakkar:router_requests_total', ROUTER, 'revision')} > 0)",
                            "{{revision}}",
                        ),
                    ),
                ),
                Panel(
                    "Time to first token by revision",
                    "s",
                    quantiles("drakkar:router_time_to_first_token_seconds", ROUTER, "revision")[
                        1:2
                    ],
                ),
                Panel(
                    "Requests at routers",
                    "short",
                    (
                        q(f"sum(drakkar:router_requests_in_flight{{{ROUTER}}})", "at replicas"),
                        q(f"sum(drakkar:router_requests_held{{{ROUTER}}})", "held"),
                    ),
                    stacked=True,
                    help="held: no replica is ready, as after scaling to zero.",
                ),
                Panel(
                    "In flight per replica",
                    "short",
                    (
                        q(
                            f"sum by (replica) (drakkar:router_replica_in_flight{{{ROUTER}}})",
                            "{{replica}}",
                        ),
                    ),
                    help="The number of lines is the number of replicas: scaling shows here.",
                ),
                Panel(
                    "Retries, refusals, open circuits",
                    "short",
                    (
                        q(rate("drakkar:router_retries_total", ROUTER), "retries/s"),
                        q(
                            rate("drakkar:router_refused_total", ROUTER, "code"),
                            "refused/s: {{code}}",
                        ),
                        q(
                            f"sum(drakkar:router_replica_circuit_open{{{ROUTER}}})",
                            "replicas without requests",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
