"""What machine this is, found out without importing torch."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import sa_core
from ablations.common.errors import UsageError
from ablations.common.sizes import SMALL_SIDE

_PACKAGES = ("torch", "torchvision", "numpy", "optuna", "mlflow")


def resolve_device(device: str) -> str:
    """Turns `auto` into `cuda` or `cpu`.

    Raises:
        UsageError: if `cuda` is asked for and torch finds none.
    """
    if device == "cpu" or (device == "auto" and not _gpus()):
        return "cpu"  # without the seconds that importing torch takes
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "auto":
        return "cpu"
    raise UsageError("device", device, "there is no CUDA device that torch can use here", ("auto", "cpu"))


def resolve_precision(precision: str, device: str) -> str:
    """Turns `auto` into `bf16` where the hardware computes in it, otherwise into `fp32`."""
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if all(capability >= (8, 0) for _, capability in _gpus()) else "fp32"
    return "bf16" if _cpu_flags() & {"avx512_bf16", "amx_bf16"} else "fp32"


def resolve_memory_format(memory_format: str, device: str) -> str:
    """Turns `auto` into the layout that is fast on `device` for the networks of this suite."""
    if memory_format != "auto":
        return memory_format
    return "channels_last" if device == "cuda" else "contiguous"


def resolve_fused(fused: str, device: str) -> str:
    """Turns `auto` into `on` where there are kernels of shuffle attention for `device`, otherwise into `off`.

    Raises:
        UsageError: if `on` is asked for where there are none.
    """
    built = find_spec("triton") if device == "cuda" else _kernels()
    if fused == "on" and not built:
        reason = "triton is not installed" if device == "cuda" else "the installation found no C++ compiler"
        raise UsageError("train.fused", fused, f"there are no kernels for {device} here: {reason}", ("auto", "off"))
    return ("on" if built else "off") if fused == "auto" else fused


def resolve_threads(threads: int | str, device: str, side: int) -> int:
    """Turns `auto` into 1 on a GPU and for small images, otherwise into the cores of this process.

    What a GPU is given to do takes one. A second one makes a small network half as fast again, a second cell beside the
    first twice; and with one the digits are the same on machines with any number of cores.
    """
    if isinstance(threads, int):
        return threads
    return 1 if device == "cuda" or side <= SMALL_SIDE else available_cores()


def available_cores() -> int:
    """Counts the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _kernels() -> list[str]:
    """Returns the instruction sets that the installation has built kernels of shuffle attention for, without torch."""
    return sorted(path.name.partition(".")[0][1:] for path in Path(sa_core.__path__[0]).glob("fused/_*.so"))


def environment() -> dict[str, str]:
    """Describes machine and software for reports: processor, accelerator, kernels, versions, commit."""
    found = {
        "cpu": f"{_cpu_name()}, {os.cpu_count()} cores",
        "gpu": ", ".join(name for name, _ in _gpus()) or "none",
        "system": f"{platform.system()} {platform.machine()}",
        "kernels": ", ".join(_kernels()) or "none",
        "python": platform.python_version(),
    }
    found.update({name: metadata.version(name) for name in _PACKAGES})
    commit = git_commit()
    return found | ({"commit": commit} if commit else {})


def clock_mhz(device: str) -> str:
    """Says at what clock a device runs at the moment, in MHz; empty where that is not known."""
    try:
        if device == "cuda":
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
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


def keep_freed_memory() -> None:
    """Tells glibc to keep large freed blocks instead of returning them to the kernel.

    A training step frees and allocates the same tensors over and over; on the CPU, having the kernel map and clear
    their pages anew each time costs a fifth of a small network's step.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # another C library
    m_trim_threshold, m_mmap_max = -1, -4
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)


def quiet_profiler() -> None:
    """Keeps Kineto, behind torch's profiler, from writing notices to standard error; to be called before torch is."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@cache
def _gpus() -> tuple[tuple[str, tuple[int, int]], ...]:
    """Returns name and compute capability of each NVIDIA GPU that the driver knows."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return tuple(
            (str(pynvml.nvmlDeviceGetName(handle)), tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)))
            for handle in handles
        )
    except Exception:  # no package, no driver, no permission: no GPU to speak of
        return ()


@cache
def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cpu_flags() -> set[str]:
    return set(_cpuinfo().get("flags", "").split())


def _cpu_name() -> str:
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()
