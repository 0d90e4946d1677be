"""The launcher that trains cells sequentially in this process.

If this process loses its GPU, as after an illegal memory access, a worker process trains the remaining cells.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ablations.common.device_faults import is_device_fault, lost_device
from ablations.common.process import keep_freed_memory, quiet_profiler
from ablations.common.sizes import MIB
from ablations.config import LocalConfig
from ablations.data.splits import View
from ablations.design import Split
from ablations.design.variants import Variant
from ablations.execution.launchers.base import Launcher
from ablations.execution.launchers.local import LocalLauncher
from ablations.execution.launchers.worker import Returned
from ablations.training.events import OUT_OF_MEMORY, Failed, Finished, Probe, Progress
from ablations.training.job import Job, failure_of, work

if TYPE_CHECKING:
    from ablations.data.device import DeviceImages


class SerialLauncher(Launcher):
    """Trains cells sequentially in this process; torch is imported on first use."""

    _running: tuple[str, Iterator[Progress]] | None = None
    _placed: tuple[View, DeviceImages] | None = None  # the images of the last cell, on the device
    _successor: LocalLauncher | None = None  # continues after this process lost its GPU

    def __post_init__(self) -> None:
        super().__post_init__()
        if lost_device():  # in an earlier study
            self._hand_over()

    def device_images(self, seed: int, split: Split) -> DeviceImages:
        """Returns the images of a cell with this seed and split, on the device."""
        from ablations.data.device import on_device

        view = self.data_set.view(seed, split)
        if self._placed is None or self._placed[0] != view:
            _ = self.images  # raises on invalid data before they are copied
            keep_freed_memory()
            quiet_profiler()
            before = self._placed[1] if self._placed else None
            images = self.data_set.images(seed, split)
            self._placed = view, on_device(images, self.data, self.design.protocol["device"], before)
        return self._placed[1]

    def prepare(self) -> str:
        """Imports torch and copies the data to the device; returns a sentence on the data, their size and location."""
        if self._successor:
            return self._successor.prepare()
        where = "on the device" if self._first_images.resident else "mapped from disk"
        return f"{self.describe_images()}; {self.data_set.nbytes / MIB:,.1f} MiB {where}."

    def probe(self, variants: Sequence[Variant], seconds: float) -> Mapping[str, Probe | str]:
        """Probes the variants sequentially."""
        if not variants:
            return {}
        if self._successor:
            return self._successor.probe(variants, seconds)
        images = self._first_images
        from ablations.training.probe import probe_or_reason

        def found(variant: Variant) -> Probe | str:
            return probe_or_reason(variant.network, self.recipe, images, seconds, self.threads)

        try:
            return {variant.name: found(variant) for variant in variants}
        finally:
            if lost_device():
                self._hand_over()

    def alone(self, function: Callable[..., Returned], *arguments: object) -> Returned:
        """Runs the function in this process."""
        if self._successor:
            return self._successor.alone(function, *arguments)
        keep_freed_memory()
        quiet_profiler()
        import torch

        torch.set_num_threads(self.threads)
        try:
            return function(*arguments)
        except Exception as error:
            if is_device_fault(error):
                self._hand_over()
            raise
        finally:
            if not self._successor and lost_device():
                self._hand_over()

    def start(self, job: Job) -> None:
        """Starts a cell; `events` trains it."""
        if self._successor:
            self._successor.start(job)
        else:
            self._running = job.cell.key, self.work(job)

    def work(self, job: Job) -> Iterator[Progress]:
        """Trains a cell."""
        try:
            images = self.device_images(job.cell.seed, job.cell.split)
        except (RuntimeError, MemoryError) as error:  # device errors; invalid data is not a failure of the cell
            failure = failure_of(error)
        else:
            yield from work(job, images)
            return
        yield failure

    @property
    def _first_images(self) -> DeviceImages:
        return self.device_images(self.design.seed(0), Split.TEST)

    def events(self) -> Iterator[tuple[str, Progress]]:
        """Trains the cell until its next event."""
        if self._successor:
            yield from self._successor.events()
            return
        if self._running is None:
            return
        key, progress = self._running
        event = next(progress)
        if isinstance(event, (Finished, Failed)):
            self._running = None
            if isinstance(event, Failed) and event.ends_process:
                self._hand_over()
            elif isinstance(event, Failed) and event.kind == OUT_OF_MEMORY:
                _free_memory()
        yield key, event

    def stop(self, key: str) -> None:
        """Stops the cell."""
        self._running = None
        if self._successor:
            self._successor.stop(key)

    def close(self) -> None:
        """Stops the current cell."""
        self._running = None
        if self._successor:
            self._successor.close()

    def _hand_over(self) -> None:
        """Delegates further work to a worker process; the GPU memory of this process stays allocated."""
        self._successor = LocalLauncher(self.design, self.data, self.console, self.threads, LocalConfig(workers=1))
        if "data_set" in vars(self):  # avoids loading the data again
            self._successor.data_set = self.data_set
        self.in_process = False


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
