"""The launcher that trains cells as tasks of Ray (ray.io), on this machine or on a cluster.

A task is a generator: the driver receives each event when it is yielded, or an error if the worker or its machine is
lost. Ray's object store holds the images once per machine, and every worker process copies them to its device once.
Workers use neither Optuna nor MLflow nor the study's folder.

A Ray instance started here listens on the loopback interface only, and ends with the driver, even if that is killed.
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

# Ray reads these at import: no usage statistics, no GPU warnings in workers without GPUs, no colored messages.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_COLOR_PREFIX", "0")

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

_RECOUNTED = 1.0  # seconds between updates of the number of cells that fit
_PATIENCE = 0.2  # seconds per wait for events
_SPARE = 256 * MIB  # bytes of a local object store in addition to the images
_LOOPBACK = "127.0.0.1"


@dataclass
class _Task:
    job: Job
    stream: Any  # ray.ObjectRefGenerator
    begun: float | None = None  # time of the first event; before that, the task waits for resources


@dataclass(eq=False)
class RayLauncher(Launcher):
    """Trains cells as tasks of Ray; joins the cluster or starts Ray on first use."""

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
        """How many cells fit at present; at least one, which may wait for a machine to become available again."""
        self._connect()
        if time.monotonic() - self._counted > _RECOUNTED:
            total = ray.cluster_resources()  # type: ignore[no-untyped-call]
            self._room = int(total.get("CPU", 0) / self.threads)
            if self._gpus:
                self._room = min(self._room, int(total.get("GPU", 0) / self._gpus + 1e-6))
            self._counted = time.monotonic()
        return max(1, min(self._room, self.config.workers or self._room))

    def prepare(self) -> str:
        """Puts the images into the object store; returns a sentence on the images and their location."""
        self._connect()
        _ = self._data_ref
        where = f"in the memory of {len(self._nodes())} machines" if len(self._nodes()) > 1 else "in shared memory"
        size = f"{self.data_set.nbytes / MIB:,.1f} MiB"
        return f"{self.describe_images()}; {size} {where}; {self.capacity} cells in parallel."

    def probe(self, variants: Sequence[Variant], seconds: float) -> Mapping[str, Probe | str]:
        """Probes several variants in parallel, as cells are trained in parallel."""
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
            while not ray.wait([task], timeout=_PATIENCE)[0]:  # a plain `get` would block the handling of signals
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
        """Submits a cell to Ray, which trains it on a machine with free resources."""
        self._tasks[job.cell.key] = _Task(job, self._training.remote(job, self._load, self.place))

    def events(self) -> Iterator[tuple[str, Progress]]:
        """Waits briefly for events of workers.

        Raises:
            UsageError: if the cluster no longer responds. (Ray ends this process itself within a minute of losing the
                head node.)
        """
        if not self._tasks:
            return
        by_stream = {task.stream: key for key, task in self._tasks.items()}
        try:
            ready, _ = ray.wait(list(by_stream), num_returns=1, timeout=_PATIENCE, fetch_local=False)
        except (RayError, OSError) as error:
            said = first_line(error)[:300]
            reason = f"the cluster no longer responds ({said}); the same command resumes when it does"
            raise UsageError("launcher", "ray", reason) from None
        for stream in ready:
            key = by_stream[stream]
            yield key, self._next(key)
        yield from self._overdue()

    def _next(self, key: str) -> Progress:
        """Returns the next event of a worker; a failure if the worker was lost."""
        task = self._tasks[key]
        task.begun = task.begun or time.monotonic()
        try:
            event: Progress = ray.get(next(task.stream))
        except StopIteration:
            event = Failed(LOST, "its worker ended without a message.")
        except OutOfMemoryError as error:  # Ray ended the worker before the system ran out of memory
            event = Failed(OUT_OF_MEMORY, first_line(error)[:300])
        except RayError as error:
            event = Failed(LOST, first_line(error)[:300])
        if isinstance(event, (Finished, Failed)):
            del self._tasks[key]
        return event

    def _overdue(self) -> Iterator[tuple[str, Progress]]:
        """Ends workers that do not stop by themselves at the time limit."""
        for key, task in list(self._tasks.items()):
            limit = task.job.seconds
            if limit and task.begun and time.monotonic() - task.begun > limit + OVERTIME:
                ray.cancel(self._tasks.pop(key).stream, force=True)
                yield key, Failed(TIME_LIMIT, f"It exceeded limits.seconds={limit:g} and did not respond.")

    def stop(self, key: str) -> None:
        """Cancels the task of a cell."""
        task = self._tasks.pop(key, None)
        if task:
            ray.cancel(task.stream)

    def close(self) -> None:
        """Ends all tasks, and a Ray instance that was started here."""
        if not self._is_connected:
            return
        for key in list(self._tasks) if self.config.address else ():  # a local Ray instance ends with all its workers
            ray.cancel(self._tasks[key].stream, force=True)
        self._tasks = {}
        self._is_connected = False
        ray.shutdown()

    @cached_property
    def _data_ref(self) -> Any:
        _ = self.images  # raises on invalid data before they are shared
        return ray.put(with_pixels(self.data_set, _plain))

    @property
    def _load(self) -> Callable[[], DataSet]:
        return partial(_fetch, [self._data_ref])

    @cached_property
    def _training(self) -> Any:
        return ray.remote(num_returns="streaming", **self._needs)(train_job)

    @property
    def _needs(self) -> dict[str, Any]:
        # The driver restarts lost cells and counts the retries, so Ray must not retry. A process with a GPU trains one
        # cell only: CUDA keeps the GPU that it was initialized with, but the next cell may be assigned another one.
        return {
            "num_cpus": self.threads,
            "num_gpus": self._gpus,
            "max_calls": 1 if self._gpus else 0,
            "max_retries": 0,
            "scheduling_strategy": "SPREAD",
        }

    def _connect(self) -> None:
        """Joins the cluster or starts a local Ray; raises UsageError if no machine has the resources for a cell."""
        if self._is_connected:
            return
        handler = signal.getsignal(signal.SIGTERM)  # Ray installs its own handler
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
    """Returns the referenced data set; the reference is in a list, as Ray resolves references passed directly."""
    data: DataSet = ray.get(references[0])
    return data


def _plain(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels.view(np.ndarray)  # Ray shares the bytes of plain arrays between the processes of a machine
