"""A vendor whose library, driver or tool may hang, so that its callers never do."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar

from drakkar_gpu.devices.base import Device, Fault, Link, Sample, Vendor, VendorError

T = TypeVar("T")


class Bounded:
    """The same vendor, one call at a time, with a limit on the time of each.

    While a call hangs, others fail at once: a driver that does not answer gets no second thread.
    """

    def __init__(self, vendor: Vendor, *, seconds: float = 30.0) -> None:
        self._vendor = vendor
        self._seconds = seconds
        self._turn = threading.Lock()
        self._hangs = False

    @property
    def name(self) -> str:
        """See ``base.Vendor``."""
        return self._vendor.name

    @property
    def resource(self) -> str:
        """See ``base.Vendor``."""
        return self._call(lambda: self._vendor.resource, "resource")

    def devices(self) -> Sequence[Device]:
        """See ``base.Vendor``."""
        return self._call(self._vendor.devices, "devices")

    def faults(self) -> Sequence[Fault]:
        """See ``base.Vendor``."""
        return self._call(self._vendor.faults, "faults")

    def links(self) -> Sequence[Link]:
        """See ``base.Vendor``."""
        return self._call(self._vendor.links, "links")

    def metrics(self) -> Sequence[Sample]:
        """See ``base.Vendor``."""
        return self._call(self._vendor.metrics, "metrics")

    def environment(self, devices: Sequence[Device]) -> Mapping[str, str]:
        """See ``base.Vendor``; this one asks nobody."""
        return self._vendor.environment(devices)

    def _call(self, work: Callable[[], T], what: str) -> T:
        if self._hangs or not self._turn.acquire(timeout=self._seconds):
            raise VendorError(f"{self.name}: an earlier call still hangs")
        done: Future[T] = Future()
        threading.Thread(
            target=self._run, args=(work, done), name=f"{self.name}-{what}", daemon=True
        ).start()
        try:
            return done.result(self._seconds)
        except FutureTimeout as error:
            if done.done():
                raise
            self._hangs = True
            raise VendorError(
                f"{self.name}: no answer to {what} within {self._seconds:g} s"
            ) from error

    def _run(self, work: Callable[[], T], done: "Future[T]") -> None:
        try:
            result = work()
        except BaseException as error:
            self._next()
            done.set_exception(error)
        else:
            self._next()
            done.set_result(result)

    def _next(self) -> None:
        self._hangs = False
        self._turn.release()
