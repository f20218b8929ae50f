"""Parts of an InferenceService: the model and its runtime, how it scales, how a new revision comes."""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from drakkar.v1alpha1.meta import PATTERN_MESSAGE, Model, Name, RelativePath, rule, rules

Text = Annotated[str, Field(max_length=4096)]
Share = Annotated[float, Field(ge=0, le=1)]
_ONE_SOURCE: Final = " + ".join(
    f"(has(self.{source}) ? 1 : 0)" for source in ("trainingJob", "pvc", "s3", "hf", "oci")
)


class TrainingJobModel(Model):
    """A checkpoint of a TrainingJob in the same namespace."""

    name: Name = Field(description="Name of the TrainingJob; it must have checkpoint.storage.")
    step: int | None = Field(
        default=None,
        ge=0,
        description="Step of the checkpoint; unset: the newest at the time the revision begins.",
    )


class ClaimModel(Model):
    """A folder on a volume."""

    claim_name: Name = Field(description="PersistentVolumeClaim in the same namespace.")
    path: RelativePath | None = Field(
        default=None, description="Folder of the model below the volume; unset: its root."
    )


class S3Model(Model):
    """A prefix in an S3 bucket, read by the runtime itself."""

    uri: str = Field(
        max_length=1024,
        pattern=r"^s3://[^/\s]+/[^\s]+$",
        description="Bucket and prefix.",
        json_schema_extra={PATTERN_MESSAGE: "write s3://BUCKET/PREFIX"},
    )
    endpoint: str | None = Field(
        default=None,
        max_length=1024,
        pattern=r"^https?://[^\s]+$",
        description="Server that is not Amazon's.",
        json_schema_extra={PATTERN_MESSAGE: "write a URL such as https://minio.example.com"},
    )
    secret_name: Name | None = Field(
        default=None,
        description="Secret whose keys, such as AWS_ACCESS_KEY_ID, become environment variables.",
    )


class HuggingFaceModel(Model):
    """A repository of the Hugging Face Hub, read by the runtime itself."""

    repo: str = Field(
        max_length=256,
        pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$",
        description="Such as Qwen/Qwen3-8B.",
        json_schema_extra={PATTERN_MESSAGE: "write OWNER/NAME, such as Qwen/Qwen3-8B"},
    )
    revision: str | None = Field(
        default=None, max_length=256, pattern=r"^[\w./-]+$", description="Branch, tag or commit."
    )
    secret_name: Name | None = Field(
        default=None,
        description="Secret whose keys, such as HF_TOKEN, become environment variables.",
    )


class ImageModel(Model):
    """A folder in an OCI image, mounted as an image volume (KEP-4639): pulled once per node."""

    image: str = Field(
        min_length=1,
        max_length=512,
        pattern=r"^[^\s]+$",
        description="Reference, best with a digest.",
        json_schema_extra={PATTERN_MESSAGE: "write an image reference without spaces"},
    )
    path: RelativePath | None = Field(
        default=None, description="Folder of the model in the image; unset: its root."
    )


class ModelCache(Model):
    """A folder that replicas share for what they make of the model: servers write there."""

    claim_name: Name = Field(
        description="PersistentVolumeClaim in the same namespace; it may be the model's own."
    )
    path: RelativePath | None = Field(
        default=None, description="Folder below the volume; unset: its root."
    )


class ServedModel(Model):
    """What is served: one source."""

    model_config: ClassVar[ConfigDict] = rules(
        rule(
            f"{_ONE_SOURCE} == 1",
            "write one source of the model: trainingJob, pvc, s3, hf or oci",
        ),
    )

    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=r"^[\w./:-]+$",
        description="What clients write as model; unset: the service's name.",
        json_schema_extra={
            PATTERN_MESSAGE: "write letters, digits and the characters . / : _ - only"
        },
    )
    training_job: TrainingJobModel | None = None
    pvc: ClaimModel | None = None
    s3: S3Model | None = None
    hf: HuggingFaceModel | None = None
    oci: ImageModel | None = None
    cache: ModelCache | None = Field(
        default=None,
        description="Packed weights, compiled kernels and downloads, kept for all replicas: what one "
        "has made the next one maps or reads.",
    )


class Probes(Model):
    """How the kubelet learns of a custom server's health, over HTTP."""

    readiness_path: str = Field(
        default="/health", max_length=256, pattern=r"^/", description="200 if it can answer."
    )
    liveness_path: str | None = Field(
        default=None, max_length=256, pattern=r"^/", description="Restarted if this is not 200."
    )


class Variable(Model):
    """An environment variable."""

    name: str = Field(max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    value: Text = ""


class Runtime(Model):
    """The server in the pods, and how it is started."""

    model_config: ClassVar[ConfigDict] = rules(
        rule(
            # The API server judges the default, {}, before it fills it in.
            "!has(self.name) || self.name == 'drakkar' || has(self.image)",
            "runtimes other than drakkar need an image: write runtime.image",
        ),
        rule(
            "!has(self.command) || self.name == 'custom'",
            "command belongs to runtime custom: write args to add to the runtime's own command line",
        ),
        rule(
            "!has(self.probes) || self.name == 'custom'",
            "probes belong to runtime custom: the others bring their own",
        ),
    )

    name: Literal["drakkar", "vllm", "sglang", "custom"] = Field(
        default="drakkar",
        description="custom: any server of OpenAI's API; it finds the model's folder in DRAKKAR_MODEL.",
    )
    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        pattern=r"^[^\s]+$",
        description="Image of the server; drakkar: the operator's setting unless given.",
        json_schema_extra={
            PATTERN_MESSAGE: "write an image reference without spaces, such as vllm/vllm-openai:v0.12.0"
        },
    )
    command: list[Text] | None = Field(default=None, max_length=64)
    args: list[Text] = Field(
        default_factory=list, max_length=128, description="Added at the end of the command line."
    )
    env: list[Variable] = Field(default_factory=list, max_length=64)
    port: int = Field(default=8000, ge=1024, le=65535, description="Of the server in its pod.")
    probes: Probes | None = None
    start_seconds: int = Field(
        default=1800,
        ge=10,
        le=86_400,
        description="The server is restarted if it is not ready this long after its start.",
    )


class Parallelism(Model):
    """How one replica is spread over devices and pods."""

    model_config: ClassVar[ConfigDict] = rules(
        rule(
            "!has(self.pods) || (self.tensor * self.pipeline) % self.pods == 0",
            "tensor times pipeline must be a multiple of pods: each pod runs as many ranks",
        ),
    )

    tensor: int = Field(default=1, ge=1, le=256, description="Ranks that share each layer.")
    pipeline: int = Field(default=1, ge=1, le=256, description="Stages of layers.")
    pods: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Pods of a replica; they are placed together or not at all.",
    )


class Adapter(Model):
    """A LoRA adapter, as PEFT saves it."""

    name: Name = Field(description="What clients write as model.")
    path: RelativePath = Field(description="Its folder below spec.adapters.claimName's volume.")


class Adapters(Model):
    """LoRA adapters that every replica loads at its start, and clients choose by name."""

    claim_name: Name = Field(description="PersistentVolumeClaim with the adapters.")
    items: list[Adapter] = Field(
        min_length=1,
        max_length=64,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
    )


class ScalingBehavior(Model):
    """How fast and how far in one step."""

    scale_down_delay_seconds: int = Field(
        default=60,
        ge=0,
        le=86_400,
        description="The highest wish of so many seconds counts: no replica goes before.",
    )
    scale_to_zero_seconds: int = Field(
        default=300,
        ge=0,
        le=86_400,
        description="The last replica goes after so long without any request.",
    )
    max_up: float = Field(
        default=10.0, gt=1, le=1000, description="Most that the replicas are multiplied by at once."
    )
    max_down: float = Field(
        default=2.0, gt=1, le=1000, description="Most that the replicas are divided by at once."
    )


class Scaling(Model):
    """The operator's own autoscaler. Without it spec.replicas counts, which HPA or KEDA may set."""

    model_config: ClassVar[ConfigDict] = rules(
        rule("self.min <= self.max", "scaling.min exceeds scaling.max: change one of them"),
        rule(
            "self.metric != 'slo' || has(self.ttftMilliseconds) || has(self.tpotMilliseconds)",
            "metric slo needs a goal: write ttftMilliseconds, tpotMilliseconds or both",
        ),
        rule(
            "self.metric == 'slo' || (!has(self.ttftMilliseconds) && !has(self.tpotMilliseconds))",
            "ttftMilliseconds and tpotMilliseconds are goals of metric slo: write it or remove them",
        ),
    )

    min: int = Field(default=1, ge=0, le=1000, description="Fewest replicas; 0: none without load.")
    max: int = Field(ge=1, le=1000, description="Most replicas.")
    metric: Literal["concurrency", "slo"] = Field(
        default="concurrency",
        description="concurrency: requests per replica. slo: latencies against their goals.",
    )
    target: float = Field(
        default=16.0,
        gt=0,
        le=100_000,
        description="Requests that a replica runs at a time; scaled so that 70 % of it are in use.",
    )
    ttft_milliseconds: float | None = Field(
        default=None,
        gt=0,
        le=3_600_000,
        description="Goal for the 90th percentile to the first token.",
    )
    tpot_milliseconds: float | None = Field(
        default=None,
        gt=0,
        le=3_600_000,
        description="Goal for the 90th percentile per later token.",
    )
    stable_seconds: int = Field(
        default=60, ge=6, le=3600, description="Window of the average load."
    )
    panic_seconds: int = Field(
        default=6, ge=1, le=600, description="Window in which a sudden load is noticed."
    )
    behavior: ScalingBehavior = ScalingBehavior()


class Canary(Model):
    """A new revision gets a part of the traffic first, and is promoted or taken back by what it does."""

    weight: int = Field(default=10, ge=1, le=99, description="Percent of the requests.")
    seconds: int = Field(
        default=300, ge=1, le=604_800, description="How long it must do well before it is promoted."
    )
    min_requests: int = Field(
        default=50,
        ge=0,
        le=1_000_000,
        description="Requests that it must have answered before it is judged or promoted.",
    )
    max_error_share: Share = Field(
        default=0.05,
        description="Taken back if its share of failed requests exceeds the stable one's by more.",
    )
    max_latency_ratio: float = Field(
        default=1.5,
        ge=1,
        le=1000,
        description="Taken back if its 90th percentile to the first token exceeds the stable one's "
        "by this factor.",
    )
    auto_promote: bool = Field(
        default=True,
        description="false: it stays until spec.canary is removed or the spec changes.",
    )


class Rollout(Model):
    """How one revision takes the place of another."""

    max_surge: int = Field(
        default=1, ge=1, le=100, description="Replicas beyond the wanted number meanwhile."
    )
    drain_seconds: int = Field(
        default=300,
        ge=1,
        le=86_400,
        description="What runs on a replica that goes may take so long to end.",
    )


class Routing(Model):
    """How the router chooses a replica."""

    policy: Literal["scored", "round-robin", "least-requests"] = "scored"
    routers: int = Field(default=1, ge=1, le=16, description="Pods of the router.")
    hold_seconds: int = Field(
        default=300,
        ge=0,
        le=3600,
        description="How long a request waits for a replica, as when there is none without load.",
    )
    concurrency: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="Requests that a replica gets at a time, the others wait in the router; 0: no limit.",
    )
