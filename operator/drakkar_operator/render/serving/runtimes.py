"""How each runtime is started and asked for its health: command lines and probes.

Of vLLM: ``vllm serve --help`` (multi-node by ``--nnodes``, ranks above 0 ``--headless``), of SGLang:
``python -m sglang.launch_server --help``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from drakkar.constants import ADAPTER_MOUNT, CACHE_MOUNT, MODEL_MOUNT
from drakkar.v1alpha1.inferenceservice import InferenceServiceSpec

DRAIN_DELAY_SECONDS: Final = 5
"""A server takes requests for so long after SIGTERM: who sends them may not know yet."""
RENDEZVOUS_PORT: Final = 20000
"""Where rank 0 of a replica of several pods waits for the others."""
PROBE_SECONDS: Final = 2


@dataclass(frozen=True, slots=True)
class Start:
    """Facts of one pod that its command line is made from."""

    spec: InferenceServiceSpec
    name: str
    """What clients call the model."""
    model: str
    """Folder, or what else the runtime reads the model from."""
    rank: int
    """Index of the pod in its replica."""
    leader: str
    """DNS name of the replica's pod 0."""
    python: str = "python"

    @property
    def pods(self) -> int:
        """Pods of the replica."""
        return self.spec.parallelism.pods


def model_location(spec: InferenceServiceSpec, checkpoint: str | None) -> str:
    """What the runtime is given as the model; ``checkpoint`` is a TrainingJob's folder."""
    model = spec.model
    if model.hf is not None:
        return model.hf.repo
    if model.s3 is not None:
        return model.s3.uri
    path = checkpoint
    if model.pvc is not None:
        path = model.pvc.path
    elif model.oci is not None:
        path = model.oci.path
    return f"{MODEL_MOUNT}/{path}".rstrip("/") if path else MODEL_MOUNT


def command(start: Start) -> list[str]:
    """Program and arguments of the server's container; empty: the image's own."""
    runtime = start.spec.runtime
    return [*_COMMANDS[runtime.name](start), *runtime.args]


def cache_variables(spec: InferenceServiceSpec) -> dict[str, str]:
    """Variables by which servers keep things in the shared folder.

    Of the base directory specification, which vLLM and Hugging Face's libraries follow, SGLang's and
    our own, where kernels are compiled to and what a custom server may ask for.
    """
    if spec.model.cache is None:
        return {}
    return {
        "DRAKKAR_CACHE": CACHE_MOUNT,
        "XDG_CACHE_HOME": CACHE_MOUNT,
        "SGLANG_CACHE_DIR": f"{CACHE_MOUNT}/sglang",
    }


def probes(spec: InferenceServiceSpec, rank: int) -> dict[str, Any]:
    """startupProbe, readinessProbe and livenessProbe of the container.

    In a replica of several pods only the first listens; the others count as ready when they run.
    """
    runtime = spec.runtime
    if rank > 0:
        return {}
    ready, alive = _HEALTH[runtime.name]
    if runtime.probes is not None:
        ready, alive = runtime.probes.readiness_path, runtime.probes.liveness_path
    period = {"periodSeconds": PROBE_SECONDS, "timeoutSeconds": 5}
    found: dict[str, Any] = {
        "startupProbe": {
            "httpGet": {"path": ready, "port": runtime.port},
            "failureThreshold": max(1, runtime.start_seconds // PROBE_SECONDS),
            **period,
        },
        "readinessProbe": {
            "httpGet": {"path": ready, "port": runtime.port},
            "failureThreshold": 2,
            **period,
        },
    }
    if alive is not None:
        found["livenessProbe"] = {
            "httpGet": {"path": alive, "port": runtime.port},
            "failureThreshold": 6,
            "periodSeconds": 10,
            "timeoutSeconds": 10,
        }
    return found


def _drakkar(start: Start) -> list[str]:
    words = [start.python, "-m", "drakkar_workers.serve", "--model", start.model]
    words += ["--name", start.name, "--port", str(start.spec.runtime.port)]
    words += ["--drain-delay", str(DRAIN_DELAY_SECONDS)]
    words += ["--drain-timeout", str(start.spec.rollout.drain_seconds)]
    if start.spec.model.cache is not None:
        words += ["--packed", f"{CACHE_MOUNT}/packed"]
    return words + (["--adapters", ADAPTER_MOUNT] if start.spec.adapters else [])


def _vllm(start: Start) -> list[str]:
    spec = start.spec
    words = ["vllm", "serve", start.model, "--served-model-name", start.name]
    words += ["--host", "0.0.0.0", "--port", str(spec.runtime.port)]
    words += ["--tensor-parallel-size", str(spec.parallelism.tensor)]
    words += ["--pipeline-parallel-size", str(spec.parallelism.pipeline)]
    if spec.model.hf is not None and spec.model.hf.revision:
        words += ["--revision", spec.model.hf.revision]
    if spec.model.s3 is not None:
        words += ["--load-format", "runai_streamer"]
    if start.pods > 1:
        words += ["--distributed-executor-backend", "mp", "--nnodes", str(start.pods)]
        words += ["--node-rank", str(start.rank), "--master-addr", start.leader]
        words += ["--master-port", str(RENDEZVOUS_PORT)]
        words += ["--headless"] if start.rank else []
    adapters = _adapters(spec)
    return words + (["--enable-lora", "--lora-modules", *adapters] if adapters else [])


def _sglang(start: Start) -> list[str]:
    spec = start.spec
    words = ["python3", "-m", "sglang.launch_server", "--model-path", start.model]
    words += ["--served-model-name", start.name]
    words += ["--host", "0.0.0.0", "--port", str(spec.runtime.port), "--enable-metrics"]
    words += ["--tp-size", str(spec.parallelism.tensor)]
    words += ["--pp-size", str(spec.parallelism.pipeline)]
    if spec.model.hf is not None and spec.model.hf.revision:
        words += ["--revision", spec.model.hf.revision]
    if start.pods > 1:
        words += ["--nnodes", str(start.pods), "--node-rank", str(start.rank)]
        words += ["--dist-init-addr", f"{start.leader}:{RENDEZVOUS_PORT}"]
    adapters = _adapters(spec)
    return words + (["--enable-lora", "--lora-paths", *adapters] if adapters else [])


def _custom(start: Start) -> list[str]:
    return list(start.spec.runtime.command or ())


def _adapters(spec: InferenceServiceSpec) -> Sequence[str]:
    items = spec.adapters.items if spec.adapters is not None else []
    return [f"{item.name}={ADAPTER_MOUNT}/{item.name}" for item in items]


_COMMANDS: Final[dict[str, Callable[[Start], list[str]]]] = {
    "drakkar": _drakkar,
    "vllm": _vllm,
    "sglang": _sglang,
    "custom": _custom,
}
_HEALTH: Final[dict[str, tuple[str, str | None]]] = {
    "drakkar": ("/health", "/livez"),
    "vllm": ("/health", "/health"),
    "sglang": ("/health", "/health"),
    "custom": ("/health", None),
}
"""Per runtime: paths of readiness and liveness."""
