"""The launcher of many cells at once: each is a task of Ray (ray.io), on this machine or on those of a cluster.

A task is a generator: what it yields comes to the driver as it happens, and when its worker or its machine goes away,
that comes in place of the next word. The images lie in Ray's object store, once for each machine, and every worker
process puts them on its device once. Workers touch neither Optuna nor MLflow nor the study's folder.

A Ray that is started here listens on the loopback interface alone, and ends with the driver, however that ends.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablations.common.errors import UsageError
from ablations.common.machine import available_cores
from ablations.common.sizes import MIB
from ablations.common.wording import first_line
from ablations.config import RayConfig
from ablations.data import DataSet
from ablations.data.sharing import with_pixels
from ablations.design.variants import Variant
from ablations.execution.launchers.base import Launcher, WorkerLostError
from ablations.execution.launchers.worker import OVERTIME, Returned, probe_variant, run_alone, train_job
from ablations.training.events import LOST, OUT_OF_MEMORY, TIME_LIMIT, Failed, Finished, Probe, Progress
from ablations.training.job import Job

# Read when Ray is imported: nothing is sent to its makers, workers without GPUs are given no advice about them, and
# what it says is not coloured.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_COLOR_PREFIX", "0")

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

_RECOUNTED = 1.0  # seconds after which it is counted anew how many cells there is room for
_PATIENCE = 0.2  # seconds that words are waited for at a time
_SPARE = 256 * MIB  # bytes of a local object store beside the images
_LOOPBACK = "127.0.0.1"


@dataclass
class _Task:
    job: Job
    words: Any  # ray.ObjectRefGenerator
    begun: float | None = None  # when it said its first word: before, it waits for room


@dataclass(eq=False)
class RayLauncher(Launcher):
    """Trains cells as tasks of Ray; it is connected to, or started, when it is first needed."""

    in_process = False
    is_local = False

    config: RayConfig = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tasks: dict[str, _Task] = {}
        self._device = self.design.protocol["device"]
        self._gpus = self.config.gpus_per_cell if self._device == "cuda" else 0.0
        self._is_connected = False
        self._room, self._counted = 0, -math.inf

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """How many cells there is room for at the moment; one at least, which waits for a machine to come back."""
        self._connect()
        if time.monotonic() - self._counted > _RECOUNTED:
            total = ray.cluster_resources()  # type: ignore[no-untyped-call]
            self._room = int(total.get("CPU", 0) / self.threads)
            if self._gpus:
                self._room = min(self._room, int(total.get("GPU", 0) / self._gpus + 1e-6))
            self._counted = time.monotonic()
        return max(1, min(self._room, self.config.workers or self._room))

    def prepare(self) -> str:
        """Puts the images into the object store; says what they are and where they are kept."""
        self._connect()
        _ = self._data_ref
        where = f"in the memory of {len(self._nodes())} machines" if len(self._nodes()) > 1 else "in shared memory"
        size = f"{self.data_set.nbytes / MIB:,.1f} MiB"
        return f"{self.describe_images()}; {size} {where}; {self.capacity} cells in parallel."

    def probe(self, variants: Sequence[Variant], seconds: float) -> Mapping[str, Probe | str]:
        """Takes steps with several variants at once, as they will be trained."""
        if not variants:
            return {}
        self._connect()
        task = ray.remote(**self._needs)(probe_variant)
        asked = {
            variant.name: task.remote(self.probe_task(variant, seconds), self._load, self.place) for variant in variants
        }
        found: dict[str, Probe | str] = {}
        for name, answer in asked.items():
            try:
                found[name] = ray.get(answer)
            except RayError as error:
                found[name] = first_line(error)[:300]
        return found

    def alone(self, function: Callable[..., Returned], *arguments: object) -> Returned:
        """Runs the function as a task of Ray."""
        self._connect()
        task = ray.remote(**self._needs)(run_alone).remote(self.threads, function, *arguments)
        try:
            while not ray.wait([task], timeout=_PATIENCE)[0]:  # a plain `get` would not let signals be handled
                pass
            result: Returned = ray.get(task)
        except RayTaskError as error:
            cause: Exception = error.cause
            raise cause from error
        except RayError as error:
            raise WorkerLostError(first_line(error)[:300]) from None
        except BaseException:
            ray.cancel(task, force=True)
            raise
        return result

    def start(self, job: Job) -> None:
        """Hands a cell to Ray, which trains it where there is room."""
        self._tasks[job.cell.key] = _Task(job, self._training.remote(job, self._load, self.place))

    def events(self) -> Iterator[tuple[str, Progress]]:
        """Waits a moment for what workers say.

        Raises:
            UsageError: if the cluster is gone. (Without its head Ray ends this process by itself, within a minute.)
        """
        if not self._tasks:
            return
        by_words = {task.words: key for key, task in self._tasks.items()}
        try:
            ready, _ = ray.wait(list(by_words), num_returns=1, timeout=_PATIENCE, fetch_local=False)
        except (RayError, OSError) as error:
            said = first_line(error)[:300]
            reason = f"the cluster no longer responds ({said}); the same command resumes when it does"
            raise UsageError("launcher", "ray", reason) from None
        for words in ready:
            key = by_words[words]
            yield key, self._next(key)
        yield from self._overdue()

    def _next(self, key: str) -> Progress:
        """Returns what a worker says next; its last word is a failure where the worker went away."""
        task = self._tasks[key]
        task.begun = task.begun or time.monotonic()
        try:
            event: Progress = ray.get(next(task.words))
        except StopIteration:
            event = Failed(LOST, "its worker ended without a message.")
        except OutOfMemoryError as error:  # Ray ended the worker, before the system would have ended anything
            event = Failed(OUT_OF_MEMORY, first_line(error)[:300])
        except RayError as error:
            event = Failed(LOST, first_line(error)[:300])
        if isinstance(event, (Finished, Failed)):
            del self._tasks[key]
        return event

    def _overdue(self) -> Iterator[tuple[str, Progress]]:
        """Ends workers that do not notice themselves that their time is over."""
        for key, task in list(self._tasks.items()):
            limit = task.job.seconds
            if limit and task.begun and time.monotonic() - task.begun > limit + OVERTIME:
                ray.cancel(self._tasks.pop(key).words, force=True)
                yield key, Failed(TIME_LIMIT, f"It exceeded limits.seconds={limit:g} and did not respond.")

    def stop(self, key: str) -> None:
        """Ends a cell's task, with its worker."""
        task = self._tasks.pop(key, None)
        if task:
            ray.cancel(task.words)

    def close(self) -> None:
        """Ends all tasks, and the Ray that was started here."""
        if not self._is_connected:
            return
        for key in list(self._tasks) if self.config.address else ():  # a Ray of our own ends with all its workers
            ray.cancel(self._tasks[key].words, force=True)
        self._tasks = {}
        self._is_connected = False
        ray.shutdown()

    @cached_property
    def _data_ref(self) -> Any:
        _ = self.images  # what is wrong with them is said first
        return ray.put(with_pixels(self.data_set, _plain))

    @property
    def _load(self) -> Callable[[], DataSet]:
        return partial(_fetch, [self._data_ref])

    @cached_property
    def _training(self) -> Any:
        return ray.remote(num_returns="streaming", **self._needs)(train_job)

    @property
    def _needs(self) -> dict[str, Any]:
        # Ray is not to begin lost cells again: the driver does, and counts. A process with a GPU trains one cell, as
        # CUDA stays with the GPU that it has begun with, and the next cell may be given another one.
        return {
            "num_cpus": self.threads,
            "num_gpus": self._gpus,
            "max_calls": 1 if self._gpus else 0,
            "max_retries": 0,
            "scheduling_strategy": "SPREAD",
        }

    def _connect(self) -> None:
        """Joins the cluster, or starts a Ray of our own; UsageError if no machine of it can train a cell."""
        if self._is_connected:
            return
        handler = signal.getsignal(signal.SIGTERM)  # which Ray replaces by one of its own
        try:
            ray.init(**self._place(), log_to_driver=False, logging_level=logging.ERROR, configure_logging=True)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            option = "launcher.address" if self.config.address else "launcher"
            reason = f"Ray does not respond: {first_line(error)[:300]}"
            if self.config.address and "RAY_AUTH_MODE" not in os.environ:
                reason += "; for a cluster with token authentication set RAY_AUTH_MODE=token"
            raise UsageError(option, self.config.address or "ray", reason) from None
        finally:
            signal.signal(signal.SIGTERM, handler)
        self._is_connected = True
        if not any(self._fits(node) for node in self._nodes()):
            self.close()
            needs = f"{self.threads} CPUs" + (f" and {self._gpus:g} GPUs" if self._gpus else "")
            raise UsageError("launcher", "ray", f"no machine of the cluster has the {needs} required by a cell")

    def _place(self) -> dict[str, Any]:
        if self.config.address:
            return {"address": self.config.address}
        return {
            "address": "local",
            "num_cpus": self.config.workers * self.threads or max(available_cores(), self.threads),
            "include_dashboard": False,
            "_node_ip_address": _LOOPBACK,
            "object_store_memory": int(1.1 * self.data_set.nbytes) + _SPARE,
        }

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]

    def _fits(self, node: Mapping[str, Any]) -> bool:
        has = node["Resources"]
        return bool(has.get("CPU", 0) >= self.threads and has.get("GPU", 0) >= self._gpus)


def _fetch(references: Sequence[Any]) -> DataSet:
    """Returns the data set that a list of one reference is to: one by itself Ray would replace by what it is to."""
    data: DataSet = ray.get(references[0])
    return data


def _plain(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels.view(np.ndarray)  # whose bytes Ray shares between the processes of a machine
