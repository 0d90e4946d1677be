"""Detects CUDA errors after which the process can no longer use its GPU.

After an illegal memory access, a failed device-side assertion or a hardware error the CUDA context is lost: every later
CUDA call of the process fails with the same error (CUDA Runtime API, section "Data types used by CUDA Runtime",
`cudaErrorIllegalAddress` and similar errors: "To continue using CUDA, the process must be terminated and relaunched").
Out-of-memory errors, invalid arguments and missing kernels do not affect the context.
"""

from __future__ import annotations

import sys

# Phrases of cudaGetErrorString, which torch and Triton quote.
_ASSERTION = "device-side assert triggered"  # the whole phrase: torch's hint after any CUDA error mentions assertions
_FAULTS = (
    _ASSERTION,
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "operation not supported on global/shared address space",
    "invalid program counter",
    "hardware stack error",
    "unspecified launch failure",
    "the launch timed out and was terminated",
    "uncorrectable ecc error",
    "uncorrectable nvlink error",
    "invalid access of peer gpu memory over nvlink",
    "context is destroyed",
)


def is_device_fault(error: BaseException) -> bool:
    """Whether an error of torch (`torch.AcceleratorError`, a RuntimeError) or Triton means that the context is lost."""
    return isinstance(error, RuntimeError) and _names(str(error), _FAULTS)


def is_assertion(error: BaseException) -> bool:
    """Whether an error is a failed assertion in a kernel, such as an index out of range; a retry would fail again."""
    return isinstance(error, RuntimeError) and _names(str(error), (_ASSERTION,))


def _names(text: str, phrases: tuple[str, ...]) -> bool:
    lowered = text.lower()
    return "cuda" in lowered and any(phrase in lowered for phrase in phrases)


def lost_device() -> RuntimeError | None:
    """Returns the CUDA error if this process has lost its CUDA context, otherwise None; synchronizes with the device.

    The original error may have been caught earlier, and the current exception need not mention it.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return error
    return None
