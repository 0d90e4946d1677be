"""Determines how many cells fit into memory in parallel, from the memory of worker processes that train briefly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ablations.common import machine
from ablations.common.sizes import MIB
from ablations.data import DataSet
from ablations.execution.launchers.worker import Place, ProbeTask, probe_variant
from ablations.training.events import Probe

_SHARE = 0.9  # fraction of the free memory that cells may use


@dataclass(frozen=True)
class Usage:
    """Memory in MiB of a worker process after training steps.

    Args:
        own: main memory of the process that it does not share with other processes.
        device: GPU memory, including the context and the images; 0 on the CPU.
        device_free: free GPU memory; inf on the CPU.
    """

    own: float
    device: float = 0.0
    device_free: float = math.inf


@dataclass(frozen=True)
class Trial:
    """The result of probing a variant, and the memory of its worker afterwards."""

    probe: Probe | str
    usage: Usage

    @property
    def peak(self) -> float:
        """Peak memory of a training step in MiB; 0 if unknown."""
        peak = self.probe.peak_memory_mib if isinstance(self.probe, Probe) else 0.0
        return 0.0 if math.isnan(peak) else peak


@dataclass(frozen=True)
class Room:
    """How many cells fit in parallel, and the memory that limits their number.

    Args:
        fitting: number of cells; at least 1.
        each: MiB of the limiting memory per cell.
        free: free MiB of the limiting memory.
        of: the limiting memory, `memory` or `GPU memory`.
    """

    fitting: int
    each: float
    free: float
    of: str = "memory"


def try_variant(task: ProbeTask, load: Callable[[], DataSet], place: Place) -> Trial:
    """Probes a variant in a worker process, then measures the memory of the process."""
    import psutil

    is_on_gpu = place.device == "cuda"
    used = machine.gpu_memory_used() if is_on_gpu else 0
    answer = probe_variant(task, load, place)
    memory = psutil.Process().memory_full_info()
    own = getattr(memory, "uss", memory.rss) / MIB
    if not is_on_gpu:
        return Trial(answer, Usage(own))
    import torch

    taken = max(machine.gpu_memory_used() - used, torch.cuda.memory_reserved())
    return Trial(answer, Usage(own, taken / MIB, torch.cuda.mem_get_info()[0] / MIB))


def find_room(free: float, trials: Sequence[Trial], largest: float, *, gpus: int) -> Room:
    """Returns how many cells fit in parallel.

    Args:
        free: free memory in MiB before the first worker started.
        trials: trials of all probed variants; the first one ran in the only worker.
        largest: highest known peak memory of a cell in MiB; GPU memory if `gpus` is not 0.
        gpus: number of GPUs for training, assumed to equal the probed one; 0 on the CPU.
    """
    if not gpus:
        return _room(max(max(0.0, trial.usage.own - trial.peak) for trial in trials) + largest, free, "memory")
    first = trials[0].usage
    host = _room(max(trial.usage.own for trial in trials), free, "memory")
    each = max(0.0, first.device - trials[0].peak) + largest
    one = _room(each, first.device + first.device_free, "GPU memory")
    return min(host, replace(one, fitting=gpus * one.fitting, free=gpus * one.free), key=lambda room: room.fitting)


def _room(each: float, free: float, of: str) -> Room:
    return Room(max(1, int(_SHARE * free / max(each, 1.0))), each, _SHARE * free, of)
