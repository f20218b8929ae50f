"""What Prometheus scrapes from a node: its devices' metrics, with the job that each works for.

Devices are read in the background; a scrape answers with the last reading, so that a driver that
hangs blocks no scrape.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import grpc
import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from drakkar.constants import LABEL_JOB
from drakkar_gpu.cluster import Api, ApiError
from drakkar_gpu.devices.base import Device, Sample, VendorError
from drakkar_gpu.devices.bounded import Bounded
from drakkar_gpu.health import Health
from drakkar_gpu.inventory import Inventory
from drakkar_gpu.jobs import PodKey, Use, Work, holders, uses, works
from drakkar_gpu.plugin.podresources import Held, held

log = structlog.get_logger(__name__)

PREFIX = "drakkar_device_"
METRICS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "utilization_ratio": ("Share of time in which the device computed, 0 to 1.", ()),
    "memory_bandwidth_ratio": ("Share of time in which its memory was read or written.", ()),
    "memory_used_bytes": ("Memory of the device in use.", ()),
    "memory_total_bytes": ("Memory of the device.", ()),
    "power_watts": ("Power that the device draws.", ()),
    "power_limit_watts": ("Power that the device may draw.", ()),
    "temperature_celsius": ("Temperature of the device.", ()),
    "clock_hertz": ("Clock of a part of the device.", ("clock",)),
    "ecc_errors_total": ("Memory errors since the driver was loaded.", ("kind",)),
    "link_errors_total": ("Errors on fabric links since the driver was loaded.", ("kind",)),
    "throttled": ("1 while clocks are lowered for this reason.", ("reason",)),
}
"""Names of samples (``base.Sample``) that are exported, with help and labels of their own."""
LABELS = ("node", "vendor", "device", "index", "model", *(field.name for field in fields(Use)))
MAX_LABEL = 128
POD_LIMIT = "500"
RETRY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Reading:
    """One vendor's devices as they were last read."""

    vendor: str
    health: Health
    samples: Sequence[Sample]
    uses: Mapping[str, Use]
    up: bool
    """Whether the vendor answered; if not, there are no samples."""


def families(node: str, readings: Sequence[Reading]) -> Iterable[Metric]:
    """All metrics, each device in each of them at most once per set of labels."""
    up = GaugeMetricFamily(f"{PREFIX}vendor_up", "1 if the vendor answers.", labels=LABELS[:2])
    healthy = _gauge("healthy", "1 if new pods may get the device.", ())
    fault = _gauge("fault", "1 for each thing wrong with the device.", ("code", "severity"))
    info = _gauge("info", "What the device is.", ("pci", "profile", "domain"))
    found = {
        name: (_counter if name.endswith("_total") else _gauge)(name, text, labels)
        for name, (text, labels) in METRICS.items()
    }
    for reading in readings:
        up.add_metric([node, reading.vendor], float(reading.up))
        devices = {device.id: device for device in reading.health.devices}
        labels = {name: _labels(node, reading, device) for name, device in devices.items()}
        for name, device in devices.items():
            described = [device.pci_address, device.profile, device.domain]
            info.add_metric([*labels[name], *map(_cut, described)], 1.0)
            healthy.add_metric(labels[name], float(reading.health.healthy(device)))
        for wrong in (*reading.health.faults.values(), *reading.health.warnings):
            if wrong.device in labels:
                words = [_cut(wrong.code), str(wrong.severity)]
                fault.add_metric([*labels[wrong.device], *words], 1.0)
        seen: set[tuple[str, ...]] = set()
        for sample in reading.samples:
            own = METRICS.get(sample.name, ("", ()))[1]
            extra = [_cut(sample.labels.get(name, "")) for name in own]
            key = (sample.name, sample.device, *extra)
            if sample.name in found and sample.device in labels and key not in seen:
                seen.add(key)
                found[sample.name].add_metric([*labels[sample.device], *extra], sample.value)
    return [up, info, healthy, fault, *found.values()]


def _labels(node: str, reading: Reading, device: Device) -> list[str]:
    use = reading.uses.get(device.id, Use())
    own = (node, reading.vendor, device.id, str(device.index), device.model)
    return [_cut(value) for value in (*own, *astuple(use))]


def _cut(value: str) -> str:
    return value[:MAX_LABEL]


def _gauge(name: str, text: str, labels: Sequence[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}{name}", text, labels=[*LABELS, *labels])


def _counter(name: str, text: str, labels: Sequence[str]) -> CounterMetricFamily:
    return CounterMetricFamily(f"{PREFIX}{name}", text, labels=[*LABELS, *labels])


class Exporter(Collector):
    """Reads the devices of some inventories in the background and answers scrapes."""

    def __init__(
        self,
        node: str,
        inventories: Sequence[Inventory],
        *,
        api: Api,
        pod_resources: Path,
        driver: str,
        period: float = 10.0,
        limit: float = 8.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``pod_resources``: the kubelet's socket. ``driver``: of claims. ``period``: seconds
        between readings. ``limit``: seconds that a vendor may take for one."""
        self._node = node
        self._inventories = inventories
        self._vendors = [Bounded(i.vendor, seconds=limit) for i in inventories]
        self._api = api
        self._pod_resources = pod_resources
        self._driver = driver
        self._period = period
        self._clock = clock
        self._held = Held({}, {})
        self._work: dict[PodKey, Work] = {}
        self._asked: frozenset[PodKey] = frozenset()
        self._readings: Sequence[Reading] = ()
        self._read_at: float | None = None
        self.port: int | None = None
        """Where it serves, once it does."""

    def collect(self) -> Iterable[Metric]:
        """The last reading, and its age."""
        yield from families(self._node, self._readings)
        age = GaugeMetricFamily(
            f"{PREFIX}reading_age_seconds", "Since the devices were read.", labels=["node"]
        )
        if self._read_at is not None:
            age.add_metric([self._node], self._clock() - self._read_at)
        yield age

    async def run(self, port: int) -> None:
        """Serve /metrics at all addresses of this host, and read, until cancelled."""
        registry = CollectorRegistry()
        registry.register(self)
        while True:
            try:
                server, _ = start_http_server(port, registry=registry)
                break
            except OSError as error:
                # Devices are handed out all the same.
                log.warning("metrics not served", port=port, error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
        self.port = server.server_port
        try:
            while True:
                await self.read()
                await asyncio.sleep(self._period)
        finally:
            server.shutdown()
            server.server_close()

    async def read(self) -> None:
        """Read everything once."""
        await self._owners()
        pairs = zip(self._inventories, self._vendors, strict=True)
        self._readings = await asyncio.gather(*(self._reading(*pair) for pair in pairs))
        self._read_at = self._clock()

    async def _reading(self, inventory: Inventory, vendor: Bounded) -> Reading:
        samples: Sequence[Sample] = ()
        up = True
        try:
            samples = await asyncio.to_thread(vendor.metrics)
        except VendorError as error:
            log.info("metrics not read", vendor=vendor.name, error=str(error))
            up = False
        devices = inventory.health.devices
        having = holders(self._held, devices, vendor=vendor.name, driver=self._driver)
        return Reading(
            vendor.name, inventory.health, samples, uses(devices, having, self._work), up
        )

    async def _owners(self) -> None:
        """Who has devices says the kubelet; what their pods run says the API server, which is
        asked only when a pod has devices that had none before."""
        try:
            self._held = await held(self._pod_resources)
        except grpc.aio.AioRpcError as error:
            log.info("kubelet not asked who has devices", error=error.details())
            return
        owners = (*self._held.devices.values(), *self._held.claimed.values())
        pods = frozenset((owner.namespace, owner.pod) for owner in owners)
        self._asked &= pods
        if pods <= self._asked:
            return
        try:
            answer = await self._api.get(
                "/api/v1/pods",
                fieldSelector=f"spec.nodeName={self._node}",
                labelSelector=LABEL_JOB,
                limit=POD_LIMIT,
            )
        except ApiError as error:
            log.info("pods of this node not read", error=str(error))
            return
        self._work = works(answer.get("items", ()))
        self._asked = pods
