"""How many cells at once fit into memory: what one takes is measured in a worker process that trains for a moment."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ablations.common import machine
from ablations.common.sizes import MIB
from ablations.data import DataSet
from ablations.execution.launchers.worker import Place, ProbeTask, probe_variant
from ablations.training.events import Probe

_SHARE = 0.9  # of the free memory that cells may take


@dataclass(frozen=True)
class Usage:
    """Memory in MiB of a worker process that has taken steps.

    Args:
        own: of the process, without what it shares with other processes.
        device: of the GPU, context and images included; 0 on the CPU.
        device_free: what is left there; inf on the CPU.
    """

    own: float
    device: float = 0.0
    device_free: float = math.inf


@dataclass(frozen=True)
class Trial:
    """What probing a variant came to, and what its worker took by then."""

    probe: Probe | str
    usage: Usage

    @property
    def peak(self) -> float:
        """Peak memory of a training step in MiB; 0 where it is not known."""
        peak = self.probe.peak_memory_mib if isinstance(self.probe, Probe) else 0.0
        return 0.0 if math.isnan(peak) else peak


@dataclass(frozen=True)
class Room:
    """How many cells fit at once, and why not more.

    Args:
        fitting: cells; at least 1.
        each: MiB that each takes, of what is short.
        free: MiB that there are of that.
        of: `memory` or `GPU memory`.
    """

    fitting: int
    each: float
    free: float
    of: str = "memory"


def try_variant(task: ProbeTask, load: Callable[[], DataSet], place: Place) -> Trial:
    """Probes a variant in a worker process, and measures what the process takes afterwards."""
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
    """Says how many cells fit at once.

    Args:
        free: MiB of memory that were free before there was a worker.
        trials: of all variants that were probed, first that of a worker when it was the only one.
        largest: peak memory in MiB of the largest cell that is known.
        gpus: that cells are trained on, all like the one that was tried, whose memory their peak is of; 0 on the CPU.
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
