"""The launcher that trains cells in this process, one after the other."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ablations.common.process import keep_freed_memory, quiet_profiler
from ablations.design.variants import Variant
from ablations.execution.launchers.base import Launcher
from ablations.training.events import OUT_OF_MEMORY, Failed, Finished, Probe, Progress
from ablations.training.job import Job, work

if TYPE_CHECKING:
    from ablations.data.device import DeviceImages


class SerialLauncher(Launcher):
    """Trains cells in this process, one after the other; torch is imported when the first one needs it."""

    _running: tuple[str, Iterator[Progress]] | None = None

    @cached_property
    def _device_images(self) -> DeviceImages:
        from ablations.data.device import on_device

        keep_freed_memory()
        quiet_profiler()
        return on_device(self.images, self.data, self.design.protocol["device"])

    def prepare(self) -> str:
        """Imports torch and moves the data to the device; says what they are, how large, and where they are kept."""
        where = "on the device" if self._device_images.resident else "mapped from disk"
        return f"{self.images.describe(self.data.side)}; {self.images.nbytes / 2**20:,.1f} MiB {where}."

    def probe(self, variants: Sequence[Variant], seconds: float) -> Mapping[str, Probe | str]:
        """Takes steps with one variant after the other."""
        images, measured = self._device_images, self.measure != "off"
        from ablations.training.probe import probe_or_reason

        def found(variant: Variant) -> Probe | str:
            return probe_or_reason(variant.network, self.recipe, images, seconds, self.threads, measured=measured)

        return {variant.name: found(variant) for variant in variants}

    def start(self, job: Job) -> None:
        """Begins to train a cell; what is done is done while events are waited for."""
        self._running = job.cell.key, self.work(job)

    def work(self, job: Job) -> Iterator[Progress]:
        """Trains a cell."""
        return work(job, self._device_images)

    def events(self) -> Iterator[tuple[str, Progress]]:
        """Trains until the cell says something."""
        if self._running is None:
            return
        key, progress = self._running
        event = next(progress)
        if isinstance(event, (Finished, Failed)):
            self._running = None
            if isinstance(event, Failed) and event.kind == OUT_OF_MEMORY:
                _free_memory()
        yield key, event

    def stop(self, key: str) -> None:
        """Gives the cell up."""
        del key
        self._running = None

    def close(self) -> None:
        """Gives up the cell in hand."""
        self._running = None


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
