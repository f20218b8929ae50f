"""What the operator and the routers of an InferenceService say to each other.

The operator long-polls each router: ``POST http://POD:8601/v1/exchange?after=VERSION&wait=SECONDS``
with a ``RouteTable`` answers with ``RouterStats`` as soon as they are newer than VERSION in a way
that can't wait (a request waits for the first replica, a circuit has opened, another table has come),
or after SECONDS. A second exchange ends the wait of the first, so a changed table is sent at once.

- The operator shows a token that it has for this service alone (``Authorization: Bearer``). Routers
  know its digest, which is no secret; without the token nobody says where requests go, or hears what
  goes on.
- A router has no access to the API server. One that has just started learns the table at the
  operator's next poll, and keeps its last table while the operator is away.
- A table of another UID is refused with 409: an address that was given to another pod.
- A table with a lower version than the one that is held is not taken; ``table_version`` of the
  answer says which is held, and the next operator counts on from there. Of two tables with the same
  version the later one is taken.
- Counters and histograms only grow, and start anew with the router's ``instance``, as Prometheus
  has it. Where there are several routers, sums over them count.
"""

import hashlib
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from drakkar.v1alpha1.meta import Model

ROUTER_PORT: Final = 8000
"""Where a router takes the clients' requests."""
ROUTER_CONTROL_PORT: Final = 8601
"""Where a router is asked by the operator, the kubelet's probes and Prometheus."""
EXCHANGE_PATH: Final = "/v1/exchange"
STATS_LIMIT_BYTES: Final = 4 << 20
"""The operator reads no more of an answer than this."""
MAX_WAIT_SECONDS: Final = 30.0
SAMPLES: Final = 120
"""Seconds of concurrency that a router remembers."""

LATENCY_BOUNDS: Final = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0,
)  # fmt: skip
"""Upper bounds of the buckets of times to the first token and of whole requests, seconds."""
TPOT_BOUNDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
)  # fmt: skip
"""Upper bounds of the buckets of the time per token after the first, seconds."""

Count = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, lt=1e9)]

ErrorClass = Literal["client", "server", "overloaded", "connect", "broken", "timeout"]
"""Of a request: refused with 4xx, answered with 5xx, refused with 429 or 503, never connected, ended
by the engine in the midst of an answer, no byte in time. Clients that left are no errors."""
FAULTS: Final[tuple[ErrorClass, ...]] = ("server", "connect", "broken", "timeout")
"""Those that speak against a revision."""


def digest(token: str) -> str:
    """Of an operator's token, as its routers know it: SHA-256, in hexadecimal digits."""
    return hashlib.sha256(token.encode()).hexdigest()


class Endpoint(Model):
    """One replica that speaks OpenAI's API.

    It is in the table for as long as its pod exists. What still runs at one that has left is broken
    off and, if no byte has come, tried elsewhere: its node may never say that it is gone.
    """

    name: str = Field(min_length=1, max_length=253, description="Of its (leader) pod.")
    url: str = Field(
        max_length=512, pattern=r"^https?://[^/?#@\s]+$", description="Without a path."
    )
    revision: str = Field(min_length=1, max_length=253)
    ready: bool = Field(description="As the kubelet says.")
    draining: bool = Field(
        default=False, description="Its running requests end there; it gets no others."
    )


class Revision(Model):
    """How much of the traffic a revision gets."""

    name: str = Field(min_length=1, max_length=253)
    weight: Weight = Field(
        description="Its share is this over the sum of those that have a replica; 0 gets nothing."
    )


class Policy(Model):
    """How replicas are compared. Scores are in 0 to 1, weighed and summed."""

    kind: Literal["scored", "round-robin", "least-requests"] = "scored"
    prefix: Weight = Field(default=3.0, description="Share of the prompt that it has seen.")
    queue: Weight = Field(default=2.0, description="Few requests that wait or run.")
    kv: Weight = Field(default=2.0, description="Room in its cache of keys and values.")
    session: Weight = Field(default=1.0, description="It served this session before.")
    adapter: Weight = Field(default=1.0, description="It has the adapter loaded.")


class RouteTable(Model):
    """All that a router must know."""

    service: str = Field(max_length=512, description="namespace/name of the InferenceService.")
    uid: str = Field(min_length=1, max_length=64, description="Of the InferenceService.")
    version: Count
    endpoints: list[Endpoint] = Field(default_factory=list, max_length=4096)
    revisions: list[Revision] = Field(
        default_factory=list,
        max_length=64,
        description="Those without an entry get nothing. Empty: all replicas alike.",
    )
    policy: Policy = Field(default_factory=Policy)
    hold_seconds: Seconds = Field(
        default=300.0, description="That a request waits for a replica; 0: it is refused at once."
    )
    hold_limit: Count = Field(default=1024, description="Requests that may wait so.")
    endpoint_limit: Count = Field(
        default=0,
        description="Requests that a replica gets at a time, the rest waits; 0: no limit.",
    )
    first_byte_seconds: Seconds = Field(
        default=600.0, description="Until a replica's answer must begin."
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, names in (
            ("endpoints", [one.name for one in self.endpoints]),
            ("revisions", [one.name for one in self.revisions]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{what}: a name is there twice")
        return self


class Histogram(Model):
    """Counts per bucket; the last one has no upper bound."""

    counts: list[Count] = Field(default_factory=list, max_length=64)
    sum: Annotated[float, Field(ge=0)] = 0.0

    @property
    def count(self) -> int:
        """Observations."""
        return sum(self.counts)

    def quantile(self, share: float, bounds: tuple[float, ...]) -> float | None:
        """Value below which ``share`` (0 to 1) of the observations lie, or None without any.

        Linear within a bucket, as Prometheus has it; the last bound for what is above it.
        """
        wanted, below, lower = share * self.count, 0, 0.0
        if not self.count:
            return None
        for count, upper in zip(self.counts, bounds, strict=False):
            if count and below + count >= wanted:
                return lower + (upper - lower) * max(0.0, wanted - below) / count
            below += count
            lower = upper
        return bounds[-1]

    def since(self, earlier: "Histogram") -> "Histogram":
        """What was observed since an earlier state of the same histogram."""
        before = earlier.counts + [0] * (len(self.counts) - len(earlier.counts))
        pairs = zip(self.counts, before, strict=False)
        return Histogram(
            counts=[max(0, now - then) for now, then in pairs], sum=max(0.0, self.sum - earlier.sum)
        )

    def plus(self, other: "Histogram") -> "Histogram":
        """Both together."""
        length = max(len(self.counts), len(other.counts))
        left, right = (one.counts + [0] * (length - len(one.counts)) for one in (self, other))
        return Histogram(
            counts=[a + b for a, b in zip(left, right, strict=True)], sum=self.sum + other.sum
        )


class RevisionStats(Model):
    """What became of attempts at a revision's replicas. All but ``in_flight`` only grow.

    A request that is tried again elsewhere counts as an attempt each time, so that an error shows
    though no client sees it. Times begin when the replica is picked.
    """

    name: str = Field(max_length=253)
    in_flight: Count = 0
    requests: Count = Field(default=0, description="Attempts that ended, errors included.")
    errors: dict[ErrorClass, Count] = Field(default_factory=dict)
    cancelled: Count = Field(default=0, description="The client left.")
    ttft: Histogram = Field(
        default_factory=Histogram, description="Of streams, to the first token; LATENCY_BOUNDS."
    )
    tpot: Histogram = Field(
        default_factory=Histogram, description="Of streams, per later token; TPOT_BOUNDS."
    )
    latency: Histogram = Field(
        default_factory=Histogram, description="Of whole answers without error; LATENCY_BOUNDS."
    )
    prompt_tokens: Count = Field(default=0, description="As far as answers tell their usage.")
    generation_tokens: Count = 0

    @property
    def faults(self) -> int:
        """Errors that speak against the revision."""
        return sum(self.errors.get(kind, 0) for kind in FAULTS)


class EndpointStats(Model):
    """A replica as the router sees it."""

    name: str = Field(max_length=253)
    in_flight: Count = 0
    circuit: Literal["closed", "open", "half-open"] = "closed"
    running: Count | None = Field(default=None, description="By its own metrics; None: unknown.")
    waiting: Count | None = None
    kv_usage: Annotated[float, Field(ge=0, le=1)] | None = None
    metrics_age_seconds: Seconds | None = None


class Sample(Model):
    """One second of load."""

    second: int = Field(description="Since the epoch.")
    concurrency: Annotated[float, Field(ge=0)] = Field(
        description="Requests in flight and held, averaged over the second's time."
    )
    arrived: Count = Field(default=0, description="Requests.")


class RouterStats(Model):
    """What a router has seen."""

    uid: str = Field(max_length=64, description="Of the InferenceService.")
    instance: str = Field(max_length=64, description="Another one whenever the router starts.")
    version: Count
    table_version: Count | None = Field(default=None, description="None: it has no table yet.")
    draining: bool = False
    in_flight: Count = Field(default=0, description="At replicas.")
    held: Count = Field(default=0, description="Waiting for a replica.")
    samples: list[Sample] = Field(
        default_factory=list,
        max_length=SAMPLES,
        description="Of the last whole seconds, oldest first, without gaps.",
    )
    revisions: list[RevisionStats] = Field(default_factory=list, max_length=64)
    endpoints: list[EndpointStats] = Field(default_factory=list, max_length=4096)
    retries: Count = Field(default=0, description="Attempts after a request's first.")
    refused: dict[str, Count] = Field(
        default_factory=dict,
        description="Requests that the router refused itself, by the error's code.",
    )
