"""What machine and software this is, without importing torch: cores, processor, GPUs, kernels, versions, commit."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import sa_core
from ablations.common import cgroup

_PACKAGES = ("torch", "torchvision", "numpy", "optuna", "mlflow")


def available_cores() -> int:
    """Counts the cores that this process may use, by its affinity and the processor time of its control group."""
    return int(max(1, min(len(allowed_cores()), cgroup.cores())))


def allowed_cores() -> list[int]:
    """Returns the numbers of the cores that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def available_memory() -> int:
    """Returns the bytes of memory that processes may still take without swapping, of the machine and control group."""
    import psutil

    return int(min(psutil.virtual_memory().available, cgroup.free_memory()))


def out_of_memory_kills() -> float:
    """Counts the processes that the kernel has killed for lack of memory since it started; nan where that is unknown.

    In a container these are those of its whole machine.
    """
    try:
        text = Path("/proc/vmstat").read_text(encoding="utf-8")
    except OSError:
        return math.nan
    return next((float(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), math.nan)


def gpu_memory_used() -> int:
    """Returns the bytes of memory in use on this process's GPUs together; 0 where the driver cannot be asked."""
    try:
        import pynvml

        return sum(int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in _visible_gpus())
    except Exception:  # no package, no driver, no permission
        return 0


def built_kernels() -> list[str]:
    """Returns the instruction sets that the installation has built kernels of shuffle attention for, without torch."""
    return sorted(path.name.partition(".")[0][1:] for path in Path(sa_core.__path__[0]).glob("fused/_*.so"))


def environment() -> dict[str, str]:
    """Describes machine and software for reports: processor, accelerator, kernels, versions, commit."""
    found = {
        "cpu": f"{_cpu_name()}, {os.cpu_count()} cores",
        "gpu": ", ".join(name for name, _ in gpus()) or "none",
        "system": f"{platform.system()} {platform.machine()}",
        "kernels": ", ".join(built_kernels()) or "none",
        "python": platform.python_version(),
    }
    found.update({name: metadata.version(name) for name in _PACKAGES})
    commit = git_commit()
    return found | ({"commit": commit} if commit else {})


def clock_mhz(gpu: str | None = None) -> str:
    """Returns the current clock in MHz of the CPU, or of the GPU with this UUID (`GPU-...`); empty if unknown."""
    try:
        if gpu is not None:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(gpu)
            return f"{pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM):.0f}"
        import psutil

        frequency = psutil.cpu_freq()
        return f"{frequency.current:.0f}" if frequency else ""
    except Exception:  # no driver, no permission, a virtual machine that hides it
        return ""


@cache
def git_commit() -> str | None:
    """Returns the commit of the code that runs, with `+changes` where files differ from it; None outside git."""
    folder = Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changed else "")


def code_version() -> str:
    """Returns which code runs: the commit, or outside git the version of the distribution."""
    return git_commit() or f"version {metadata.version('shuffle-attention-ablations')}"


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    # Of this folder's repository: a hook, for one, has GIT_DIR set to another one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    found = subprocess.run(
        command, check=True, capture_output=True, encoding="utf-8", errors="replace", env=environment
    )
    return found.stdout.strip()


@cache
def gpus() -> tuple[tuple[str, tuple[int, int]], ...]:
    """Returns name and compute capability of each NVIDIA GPU of this process, as far as NVML tells them."""
    try:
        import pynvml

        return tuple(
            (str(pynvml.nvmlDeviceGetName(handle)), tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)))
            for handle in _visible_gpus()
        )
    except Exception:  # no package, no driver, no permission
        return ()


def _visible_gpus() -> list[Any]:
    """Returns NVML's handles of the GPUs that this process may use: all, or those of CUDA_VISIBLE_DEVICES in its order.

    Numbers are NVML's. They are CUDA's, too, if the GPUs are alike or CUDA_DEVICE_ORDER is PCI_BUS_ID.
    """
    import pynvml

    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    if (listed := os.environ.get("CUDA_VISIBLE_DEVICES")) is None:
        return handles
    visible = []
    for name in map(str.strip, listed.split(",")):
        named = [
            handle
            for number, handle in enumerate(handles)
            if name == str(number) or (name.startswith("GPU-") and pynvml.nvmlDeviceGetUUID(handle).startswith(name))
        ]
        if len(named) != 1:
            break  # CUDA, too, ignores what follows the first name that it does not know
        visible += named
    return visible


def has_cuda_driver() -> bool:
    """Whether the driver of NVIDIA's GPUs is installed, without importing torch."""
    with contextlib.suppress(OSError):
        return bool(ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1"))
    return False


@cache
def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_flags() -> set[str]:
    """Returns the instruction sets that the processor has, by Linux's names; none on other systems."""
    return set(_cpuinfo().get("flags", "").split())


def _cpu_name() -> str:
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()
