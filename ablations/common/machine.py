"""Describes machine and software without importing torch: cores, processor, GPUs, kernels, versions, commit."""

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
    """Counts the cores that this process may use, given its affinity and the limit of its control group."""
    return int(max(1, min(len(allowed_cores()), cgroup.cores())))


def allowed_cores() -> list[int]:
    """Returns the numbers of the cores that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def available_memory() -> int:
    """Returns the bytes of memory still available without swapping, given the machine and the control group."""
    import psutil

    return int(min(psutil.virtual_memory().available, cgroup.free_memory()))


def out_of_memory_kills() -> float:
    """Counts the processes that the kernel has killed for lack of memory since it started; nan if unknown.

    In a container the count is of the whole machine.
    """
    try:
        text = Path("/proc/vmstat").read_text(encoding="utf-8")
    except OSError:
        return math.nan
    return next((float(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), math.nan)


def gpu_memory_used() -> int:
    """Returns the bytes of memory in use on all of this process's GPUs; 0 if NVML is not available."""
    try:
        import pynvml

        return sum(int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in _visible_gpus())
    except Exception:  # no package, no driver, no permission
        return 0


def built_kernels() -> list[str]:
    """Returns the instruction sets for which the installation has compiled kernels of shuffle attention."""
    return sorted(path.name.partition(".")[0][1:] for path in Path(sa_core.__path__[0]).glob("fused/_*.so"))


def environment() -> dict[str, str]:
    """Describes machine and software for reports: processor, accelerator, kernels, versions, commit."""
    description = {
        "cpu": f"{_cpuinfo().get('model name') or platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "gpu": ", ".join(dict.fromkeys(name for name, _ in gpus())) or "none",  # a cell has one of those that are alike
        "system": f"{platform.system()} {platform.machine()}",
        "kernels": ", ".join(built_kernels()) or "none",
        "python": platform.python_version(),
    }
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):  # a worker needs no MLflow
            description[name] = metadata.version(name)
    commit = git_commit()
    return description | ({"commit": commit} if commit else {})


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
    except Exception:  # no driver, no permission, or hidden by a virtual machine
        return ""


@cache
def git_commit() -> str | None:
    """Returns the commit of the running code, with `+changes` if files differ from it; None outside git."""
    folder = Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changed else "")


def code_version() -> str:
    """Returns the version of the running code: the commit, or outside git that of the distribution."""
    return git_commit() or f"version {metadata.version('shuffle-attention-ablations')}"


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    # GIT_DIR, as set in git hooks, may point to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    completed = subprocess.run(
        command, check=True, capture_output=True, encoding="utf-8", errors="replace", env=environment
    )
    return completed.stdout.strip()


@cache
def gpus() -> tuple[tuple[str, tuple[int, int]], ...]:
    """Returns name and compute capability of each NVIDIA GPU of this process, read by NVML; empty without NVML."""
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

    Device numbers are NVML's, which equal CUDA's if all GPUs are of one model or CUDA_DEVICE_ORDER is PCI_BUS_ID.
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
            break  # like CUDA, which ignores everything after the first unknown name
        visible += named
    return visible


def cuda_devices() -> list[str]:
    """Returns the CUDA devices of this process, each as CUDA_VISIBLE_DEVICES names it alone, without importing torch.

    The driver counts them, which knows of NVML, MIG and that variable, and needs none of them.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    number = _cuda_device_count()
    return [name.strip() for name in listed.split(",")][:number] if listed else list(map(str, range(number)))


def _cuda_device_count() -> int:
    count = ctypes.c_int(0)
    with contextlib.suppress(OSError, AttributeError):
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0


def has_cuda_driver() -> bool:
    """Returns whether the driver of NVIDIA's GPUs is installed, without importing torch."""
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
    """Returns the processor's instruction sets by their names on Linux; empty on other systems."""
    return set(_cpuinfo().get("flags", "").split())
