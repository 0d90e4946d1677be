"""The launcher that trains cells in this process, one after the other."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ablations.common.process import keep_freed_memory, quiet_profiler
from ablations.common.sizes import MIB
from ablations.data.splits import View
from ablations.design import Split
from ablations.design.variants import Variant
from ablations.execution.launchers.base import Launcher
from ablations.execution.launchers.worker import Returned
from ablations.training.events import OUT_OF_MEMORY, Failed, Finished, Probe, Progress
from ablations.training.job import Job, work

if TYPE_CHECKING:
    from ablations.data.device import DeviceImages


class SerialLauncher(Launcher):
    """Trains cells in this process, one after the other; torch is imported when the first one needs it."""

    _running: tuple[str, Iterator[Progress]] | None = None

    _placed: tuple[View, DeviceImages] | None = None  # what the last cell saw, on the device

    def device_images(self, seed: int, split: Split) -> DeviceImages:
        """Returns on the device what a cell with this seed and split sees."""
        from ablations.data.device import on_device

        view = self.data_set.view(seed, split)
        if self._placed is None or self._placed[0] != view:
            _ = self.images  # what is wrong with them is said first
            keep_freed_memory()
            quiet_profiler()
            before = self._placed[1] if self._placed else None
            images = self.data_set.images(seed, split)
            self._placed = view, on_device(images, self.data, self.design.protocol["device"], before)
        return self._placed[1]

    def prepare(self) -> str:
        """Imports torch and moves the data to the device; says what they are, how large, and where they are kept."""
        where = "on the device" if self._first_images.resident else "mapped from disk"
        return f"{self.describe_images()}; {self.data_set.nbytes / MIB:,.1f} MiB {where}."

    def probe(self, variants: Sequence[Variant], seconds: float) -> Mapping[str, Probe | str]:
        """Takes steps with one variant after the other."""
        if not variants:
            return {}
        images = self._first_images
        from ablations.training.probe import probe_or_reason

        def found(variant: Variant) -> Probe | str:
            return probe_or_reason(variant.network, self.recipe, images, seconds, self.threads)

        return {variant.name: found(variant) for variant in variants}

    def alone(self, function: Callable[..., Returned], *arguments: object) -> Returned:
        """Runs the function in this process."""
        keep_freed_memory()
        quiet_profiler()
        import torch

        torch.set_num_threads(self.threads)
        return function(*arguments)

    def start(self, job: Job) -> None:
        """Begins to train a cell; what is done is done while events are waited for."""
        self._running = job.cell.key, self.work(job)

    def work(self, job: Job) -> Iterator[Progress]:
        """Trains a cell."""
        return work(job, self.device_images(job.cell.seed, job.cell.split))

    @property
    def _first_images(self) -> DeviceImages:
        return self.device_images(self.design.seed(0), Split.TEST)

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
