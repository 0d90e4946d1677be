"""Resolves options that are `auto` on this machine, where possible without importing torch."""

from __future__ import annotations

from importlib.util import find_spec

from ablations.common import machine
from ablations.common.errors import UsageError
from ablations.common.sizes import SMALL_SIDE


def resolve_device(device: str) -> str:
    """Turns `auto` into `cuda` or `cpu`; raises a UsageError for `cuda` if torch finds no GPU."""
    if device == "cpu" or (device == "auto" and not machine.has_cuda_driver()):
        return "cpu"  # saves importing torch, which takes seconds
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "auto":
        return "cpu"
    raise UsageError("device", device, "no CUDA device is available to torch", ("auto", "cpu"))


def resolve_precision(precision: str, device: str) -> str:
    """Turns `auto` into `bf16` if the hardware supports it, otherwise into `fp32`."""
    if precision != "auto":
        return precision
    if device == "cuda":
        import torch

        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp32"
    return "bf16" if machine.cpu_flags() & {"avx512_bf16", "amx_bf16"} else "fp32"


def resolve_memory_format(memory_format: str, device: str) -> str:
    """Turns `auto` into the faster layout on `device` for the networks of this suite."""
    if memory_format != "auto":
        return memory_format
    return "channels_last" if device == "cuda" else "contiguous"


def resolve_fused(fused: str, device: str) -> str:
    """Turns `auto` into `on` or `off`, depending on kernels for `device`; raises a UsageError for `on` without any."""
    built = find_spec("triton") if device == "cuda" else machine.built_kernels()
    if fused == "on" and not built:
        reason = "triton is not installed" if device == "cuda" else "no C++ compiler was found at installation"
        raise UsageError("train.fused", fused, f"no kernels are available for {device}: {reason}", ("auto", "off"))
    return ("on" if built else "off") if fused == "auto" else fused


def resolve_threads(threads: int | str, device: str, side: int) -> int:
    """Turns `auto` into 1 on a GPU and for images of up to 64 pixels, otherwise into the number of available cores.

    Feeding a GPU takes one thread. A small network gains a factor of 1.5 from a second thread, but training a second
    cell in parallel gains 2; and with one thread results do not depend on the number of cores.
    """
    if isinstance(threads, int):
        return threads
    return 1 if device == "cuda" or side <= SMALL_SIDE else machine.available_cores()
