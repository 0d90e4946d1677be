"""The launcher that trains several cells in parallel, in worker processes of this machine.

On a CPU, `launcher.workers` or the number of cores, and the memory limit the number of workers; each worker trains one
cell at a time. On GPUs, each GPU has one worker, which interleaves the training steps of several cells; additional
workers are distributed evenly. Workers start on demand, and keep their images and the state of torch between cells.
"""

from __future__ import annotations

import math
import pickle
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle, islice
from signal import SIGKILL

from ablations.common import machine
from ablations.common.errors import UsageError
from ablations.common.sizes import MIB
from ablations.common.wording import count
from ablations.config import AUTO, LocalConfig
from ablations.data import DataSet
from ablations.data.sharing import mapped
from ablations.design.variants import Variant
from ablations.execution.launchers.base import Launcher, WorkerLostError
from ablations.execution.launchers.process import WorkerGoneError, WorkerProcess, start_server, wait
from ablations.execution.launchers.room import Room, Trial, find_room, try_variant
from ablations.execution.launchers.serve import Answer, Call, CallWithImages, Stop, Train
from ablations.execution.launchers.together import Rate, best_number, measure_rates
from ablations.execution.launchers.worker import OVERTIME, Place, Returned
from ablations.training.events import LOST, OUT_OF_MEMORY, TIME_LIMIT, Failed, Finished, Probe, Progress
from ablations.training.job import Job

_RECOUNTED = 5.0  # seconds between readings of the out-of-memory kill count
_MEASURED = 1.0  # seconds of steps measured for each number of cells on a GPU
_PATIENCE = 0.2  # seconds per wait for workers; signals are handled between waits


@dataclass
class _Training:
    """A cell in training, its worker, and its start time."""

    job: Job
    worker: WorkerProcess
    begun: float


@dataclass(eq=False)
class LocalLauncher(Launcher):
    """Trains cells in worker processes of this machine.

    Attributes:
        cells_per_worker: how many cells a worker trains concurrently; None until determined.
    """

    in_process = False

    config: LocalConfig = field(default_factory=LocalConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._workers: list[WorkerProcess] = []
        self._lone: WorkerProcess | None = None  # runs functions; has no images
        self._training: dict[str, _Training] = {}
        self._trials: list[Trial] = []
        self._free_mib = math.inf  # free memory before the first worker started
        self._room: Room | None = None
        self._most = math.inf  # maximum number of workers; lowered after an out-of-memory kill
        self.cells_per_worker: int | None = None
        self._shared_before = False  # whether concurrent cells of a worker have exhausted the memory of its GPU
        self._kills, self._counted = math.nan, -math.inf  # out-of-memory kill count, and time of reading

    def warm_up(self) -> None:
        """Starts the process from which workers are forked."""
        start_server()

    def expect(self, cells: int, memory_mib: float) -> None:
        """Sets the quantities that limit the number of workers."""
        super().expect(cells, memory_mib)
        self._room = None

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """How many cells are trained in parallel.

        Raises:
            UsageError: if `launcher.workers` cells do not fit into memory.
        """
        return self._processes * self._each

    @property
    def _processes(self) -> int:
        return int(max(1, min(self._wanted, self._checked_room.fitting, self._most)))

    @property
    def _wanted(self) -> int:
        return self.config.workers or self._gpu_count or max(1, machine.available_cores() // self.threads)

    @property
    def _is_on_gpu(self) -> bool:
        return bool(self.design.protocol["device"] == "cuda")

    @property
    def _each(self) -> int:
        """How many cells a worker trains concurrently."""
        if self.cells_per_worker is not None:
            return self.cells_per_worker
        asked = self.config.cells_per_gpu
        if not self._is_on_gpu or (asked == AUTO and self.config.workers > self._gpu_count):
            self.cells_per_worker = 1
        elif asked != AUTO:
            self.cells_per_worker = int(asked)
        elif self.cells == 1 or not self.design.variants:  # a search may not have selected any yet
            return 1
        else:
            self.cells_per_worker = best_number(self._measure_rates())
        return self.cells_per_worker

    def _measure_rates(self) -> list[Rate]:
        """Measures the first variant; returns [] on failure, as the cells will fail with the reason."""
        worker = self._idle_worker()
        worker.send(CallWithImages(measure_rates, self.probe_task(self.design.variants[0], _MEASURED)))
        try:
            answer = _answer_of(worker)
        except WorkerGoneError:
            self._workers.remove(worker)
            return []
        return [] if answer.error else answer.value

    @property
    def _checked_room(self) -> Room:
        """How many cells fit into memory; not measured for a single worker or without variants."""
        if self._wanted == 1 or not self.design.variants:  # a search may not have selected any yet
            return Room(self._wanted, math.nan, math.inf)
        if self._room is None:
            if not self._trials:
                self._try_first()
            self._room = room = self._find_room()
            wanted = min(self._wanted, self.cells or self._wanted)
            if self.config.workers and wanted > room.fitting and not math.isnan(room.each):
                reason = (
                    f"{count(wanted, 'cell')} in parallel need about {wanted * room.each:,.0f} MiB of {room.of} "
                    f"({room.each:,.0f} MiB each), but {room.free:,.0f} MiB are available; at most {room.fitting} fit"
                )
                raise UsageError("launcher.workers", self.config.workers, reason)
        return self._room

    def _try_first(self) -> None:
        """Probes a variant briefly in the only worker, to measure its memory."""
        first = self.design.variants[0]
        self._free_mib = machine.available_memory() / MIB
        for _, trial in self._try([first], 0.0, at_once=1):
            if isinstance(trial, Trial):
                self._trials.append(trial)

    def _find_room(self) -> Room:
        if not self._trials:  # the cells will fail with the reason
            return Room(1, math.nan, math.nan)
        known = [trial.peak for trial in self._trials]
        if not math.isnan(self.peak_mib):
            known.append(self.peak_mib)
        # A tuned recipe may have larger batches than the probed one.
        growth = max(self._batch_sizes.values()) / self.recipe.batch_size
        return find_room(self._free_mib, self._trials, growth * max(known), gpus=self._gpu_count)

    @cached_property
    def gpus(self) -> list[str]:
        """The GPUs for training, in the notation of CUDA_VISIBLE_DEVICES; empty on the CPU."""
        return machine.cuda_devices() if self._is_on_gpu else []

    @property
    def busy_gpus(self) -> list[str | None]:
        """The GPU of each cell in training."""
        return [training.worker.gpu for training in self._training.values()]

    @property
    def _gpu_count(self) -> int:
        """The number of GPUs for training; 1 if the CUDA driver lists none."""
        return max(1, len(self.gpus)) if self._is_on_gpu else 0

    def prepare(self) -> str:
        """Returns a sentence on the data, their location, and the number of parallel cells."""
        where = "on the device for each worker" if self._is_on_gpu else "shared by all workers"
        text = (
            f"{self.describe_images()}; {self.data_set.nbytes / MIB:,.1f} MiB {where}; {count(self.capacity, 'cell')}"
        )
        room = self._checked_room
        among = f" on {len(self.gpus)} GPUs" if len(self.gpus) > 1 else ""
        if room.fitting < self._wanted and room.each > 0:
            text += f" in parallel{among}, limited by {room.of} ({room.each:,.0f} MiB each, {room.free:,.0f} MiB free)"
            return f"{text}."
        return f"{text} in parallel{among}."

    def probe(self, variants: Sequence[Variant], seconds: float) -> Mapping[str, Probe | str]:
        """Probes as many variants in parallel as cells will be trained, as parallel cells slow each other down."""
        if not variants:
            return {}
        at_once = min(self._processes, self.cells or self._processes)
        # The first variants are probed again in the last round, so that no worker is idle while another one probes.
        rounds = -(-len(variants) // at_once)
        found: dict[str, Probe | str] = {}
        for name, trial in self._try(list(islice(cycle(variants), rounds * at_once)), seconds, at_once):
            if isinstance(trial, Trial):
                self._trials.append(trial)
            found.setdefault(name, trial.probe if isinstance(trial, Trial) else trial)
        self._room = None  # the probed variants may need more memory
        _ = self.capacity
        return {variant.name: found[variant.name] for variant in variants}  # in input order, not that of completion

    def _try(self, variants: Sequence[Variant], seconds: float, at_once: int) -> Iterator[tuple[str, Trial | str]]:
        """Probes variants in `at_once` workers; yields names with results in order of completion."""
        waiting = deque(variants)
        asked: dict[WorkerProcess, str] = {}
        while waiting or asked:
            while waiting and len(asked) < at_once:
                variant = waiting.popleft()
                worker = self._idle_worker(asked)
                worker.send(CallWithImages(try_variant, self.probe_task(variant, seconds)))
                asked[worker] = variant.name
            for worker in wait(asked, _PATIENCE):
                try:
                    message = worker.receive()
                except WorkerGoneError as error:
                    self._workers.remove(worker)
                    yield asked.pop(worker), str(error)
                    continue
                if isinstance(message, Answer):
                    if message.ends_process:
                        self._drop(worker)
                    yield asked.pop(worker), str(message.error) if message.error else message.value

    def alone(self, function: Callable[..., Returned], *arguments: object) -> Returned:
        """Runs the function in a separate worker without images, while the other workers are idle."""
        if self._lone is None or not self._lone.is_alive:
            self._lone = _started(None, self._next_gpu([]))
        worker = self._lone
        try:
            worker.send(Call(pickle.dumps((function, arguments)), self.threads))
            answer = _answer_of(worker)
        except WorkerGoneError as error:
            raise WorkerLostError(str(error)) from None
        except BaseException:
            worker.kill()
            raise
        if answer.ends_process:
            worker.kill()
        if answer.error:
            raise answer.error
        result: Returned = answer.value
        return result

    def start(self, job: Job) -> None:
        """Starts a cell in a worker."""
        worker = self._idle_worker(each=self._each)
        self._training[job.cell.key] = _Training(job, worker, time.monotonic())
        self._count_kills()
        worker.send(Train(job))

    def events(self) -> Iterator[tuple[str, Progress]]:
        """Waits briefly for events of workers."""
        if not self._training:
            return
        for worker in wait({training.worker for training in self._training.values()}, _PATIENCE):
            try:
                message = worker.receive()
            except WorkerGoneError as error:
                self._workers.remove(worker)
                yield from self._lose(worker, self._lost(error))
                continue
            # A worker may still send events of a cell after the order to stop it.
            if isinstance(message, tuple) and self._trains(worker, message[0]):
                key, event = message
                yield key, self._ended(key, event) if isinstance(event, (Finished, Failed)) else event
                if isinstance(event, Failed) and event.ends_process:
                    self._drop(worker)
                    yield from self._lose(worker, Failed(LOST, "Its worker process lost its GPU by another cell."))
        yield from self._overdue()
        self._count_kills()

    def _trains(self, worker: WorkerProcess, key: str) -> bool:
        return key in self._training and self._training[key].worker is worker

    def _ended(self, key: str, event: Finished | Failed) -> Finished | Failed:
        """Ends a cell; if it ran out of GPU memory beside other cells, it is retried with fewer concurrent cells.

        Smaller micro-batches would change its result, which must not depend on other cells.
        """
        worker = self._training.pop(key).worker
        others = sum(training.worker is worker for training in self._training.values())
        if not (isinstance(event, Failed) and event.kind == OUT_OF_MEMORY and others):
            return event
        self.cells_per_worker = 1 if self._shared_before else max(1, (others + 1) // 2)
        self._shared_before = True
        return Failed(
            LOST,
            f"It ran out of memory beside {count(others, 'other cell')}; from now on "
            f"{count(self.cells_per_worker, 'cell')} in parallel in a worker.",
        )

    def _lose(self, worker: WorkerProcess, failed: Failed) -> Iterator[tuple[str, Progress]]:
        """Ends the cells of a worker that has ended."""
        for key in [key for key in self._training if self._trains(worker, key)]:
            del self._training[key]
            yield key, failed

    def _count_kills(self) -> None:
        """Reads the out-of-memory kill count at intervals, as a killed process may end with a delay."""
        if time.monotonic() - self._counted > _RECOUNTED:
            self._kills, self._counted = machine.out_of_memory_kills(), time.monotonic()

    def _lost(self, error: WorkerGoneError) -> Failed:
        """Returns why a cell was lost; after an out-of-memory kill, fewer cells are trained in parallel."""
        is_short = error.signal == SIGKILL and machine.out_of_memory_kills() > self._kills
        if not is_short:
            return Failed(LOST, str(error))
        reason = f"{str(error).rstrip('.')} because the system ran out of memory"
        if self._processes == 1:
            return Failed(OUT_OF_MEMORY, f"{reason}.")
        self._most, self._counted = self._processes - 1, -math.inf
        return Failed(LOST, f"{reason}; from now on {count(self.capacity, 'cell')} in parallel.")

    def _overdue(self) -> Iterator[tuple[str, Progress]]:
        """Ends workers that do not stop by themselves at the time limit."""
        for key, training in list(self._training.items()):
            limit = training.job.seconds
            if limit and time.monotonic() - training.begun > limit + OVERTIME and key in self._training:
                del self._training[key]
                self._drop(training.worker)
                yield key, Failed(TIME_LIMIT, f"It exceeded limits.seconds={limit:g} and did not respond.")
                reason = "Its worker process was ended, as another cell of it exceeded limits.seconds."
                yield from self._lose(training.worker, Failed(LOST, reason))

    def stop(self, key: str) -> None:
        """Stops a cell at its next step; its worker remains available."""
        training = self._training.pop(key, None)
        if training:
            training.worker.send(Stop(key))

    def close(self) -> None:
        """Ends all workers."""
        self._training = {}
        while self._workers:
            self._drop(self._workers[-1])
        if self._lone:
            self._lone.kill()

    def _idle_worker(self, busy: Iterable[WorkerProcess] = (), each: int = 1) -> WorkerProcess:
        """Returns a worker with fewer than `each` cells, preferably on the least-used GPU; starts one if needed."""
        cells = Counter([*busy, *(training.worker for training in self._training.values())])
        for worker in [worker for worker in self._workers if not worker.is_alive and not cells[worker]]:
            self._drop(worker)
        free = [worker for worker in self._workers if cells[worker] < each]
        idle = [worker for worker in free if not cells[worker]]
        if not idle and (not free or len(self._workers) < self._processes):
            self._workers.append(_started((self._shared_data, self.place), self._next_gpu(self._workers)))
            return self._workers[-1]
        on_gpu = Counter(worker.gpu for worker in cells.elements())
        return min(idle or free, key=lambda worker: (cells[worker], on_gpu[worker.gpu]))

    def _next_gpu(self, workers: Sequence[WorkerProcess]) -> str | None:
        """Returns the GPU with the fewest workers; None for fewer than two GPUs."""
        if len(self.gpus) < 2:
            return None
        return min(self.gpus, key=lambda gpu: sum(worker.gpu == gpu for worker in workers))

    def _drop(self, worker: WorkerProcess) -> None:
        with suppress(ValueError):
            self._workers.remove(worker)
        worker.kill()

    @cached_property
    def _shared_data(self) -> DataSet:
        _ = self.images  # raises on invalid data before they are shared
        return mapped(self.data_set)


def _answer_of(worker: WorkerProcess) -> Answer:
    """Waits for the result of a function in a worker; raises WorkerGoneError if the worker ends first."""
    answer = None
    while not isinstance(answer, Answer):
        wait([worker], _PATIENCE)
        answer = worker.receive()
    return answer


def _started(images: tuple[DataSet, Place] | None, gpu: str | None) -> WorkerProcess:
    """Starts a worker; raises UsageError if none can be started."""
    try:
        return WorkerProcess(images, gpu)
    except OSError as error:
        reason = f"a worker process cannot be started ({error.strerror or error}); launcher=serial needs none"
        raise UsageError("launcher", "auto", reason) from None
