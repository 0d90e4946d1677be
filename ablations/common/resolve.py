"""Resolves options that are `auto` on this machine, where possible without importing torch."""

from __future__ import annotations

from ablations.common import machine
from ablations.common.errors import UsageError
from ablations.common.sizes import SMALL_SIDE
from sa_core.triton_build import reason_against_triton


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
    if fused == "off":
        return fused
    reason = reason_against_kernels(device)
    if fused == "on" and reason:
        raise UsageError("train.fused", fused, f"no kernels are available for {device}: {reason}", ("auto", "off"))
    return "off" if reason else "on"


def check_compile(mode: str, device: str) -> None:
    """Checks that networks can be compiled, which on a GPU is Triton's work; raises a UsageError if not."""
    if mode != "none" and device == "cuda" and (reason := reason_against_triton()):
        raise UsageError("train.compile", mode, f"is not available on {device}: {reason}", ("none",))


def reason_against_kernels(device: str) -> str | None:
    """Returns why there are no kernels of shuffle attention for `device`, as a clause; None where there are."""
    if device == "cuda":
        return reason_against_triton()
    return None if machine.built_kernels() else "no C++ compiler was found at installation"


def resolve_threads(threads: int | str, device: str, side: int) -> int:
    """Turns `auto` into 1 on a GPU and for images of up to 64 pixels, otherwise into the number of available cores.

    Feeding a GPU takes one thread. A small network gains a factor of 1.5 from a second thread, but training a second
    cell in parallel gains 2; and with one thread results do not depend on the number of cores.
    """
    if isinstance(threads, int):
        return threads
    return 1 if device == "cuda" or side <= SMALL_SIDE else machine.available_cores()
