"""Errors after which a process can use its GPU no more.

After an illegal memory access, a failed device-side assertion or a hardware error the CUDA context is lost: every later
call of CUDA in the process fails with the same error (CUDA Runtime API, section "Data types used by CUDA Runtime",
`cudaErrorIllegalAddress` and the like: "To continue using CUDA, the process must be terminated and relaunched"). Too
little memory, a wrong argument or a missing kernel leaves the context as it was.
"""

from __future__ import annotations

import sys

# As cudaGetErrorString has them; torch and Triton quote it.
_ASSERTION = "device-side assert triggered"  # torch's hint behind every error of CUDA speaks of assertions, too
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
    """Whether an error of torch (`torch.AcceleratorError`, a RuntimeError) or Triton says that the context is lost."""
    return isinstance(error, RuntimeError) and _names(str(error), _FAULTS)


def is_assertion(error: BaseException) -> bool:
    """Whether an error is a failed assertion of a kernel, such as an index out of range; it fails again if retried."""
    return isinstance(error, RuntimeError) and _names(str(error), (_ASSERTION,))


def _names(text: str, phrases: tuple[str, ...]) -> bool:
    lowered = text.lower()
    return "cuda" in lowered and any(phrase in lowered for phrase in phrases)


def lost_device() -> RuntimeError | None:
    """Returns the error of CUDA if this process has used it and can do so no more, otherwise None.

    An error may have been caught by whoever met it first; what follows need not name it. Waits for the device.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return error
    return None
