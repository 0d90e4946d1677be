"""What CUDA raises when a process has lost its GPU, planted into cells: in this process and in worker processes."""

from __future__ import annotations

from pathlib import Path

import torch

HINTS = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions.\n"
)
ILLEGAL_ACCESS = f"CUDA error: an illegal memory access was encountered{HINTS}"
ASSERTION = f"CUDA error: device-side assert triggered{HINTS}"


def raise_fault(text: str = ILLEGAL_ACCESS) -> None:
    """Raises what torch does."""
    raise torch.AcceleratorError(text)


def raise_fault_in_place_of_probing(*_: object) -> None:
    """Raises what torch does, whatever is to be probed."""
    raise_fault()


class Faulty(float):
    """A number that is compared with others once: then CUDA's error is raised, and a file notes that it was.

    As an option of a recipe it reaches worker processes, where `torch.optim` checks it.
    """

    text: str
    file: Path

    @classmethod
    def of(cls, value: float, text: str, file: Path) -> Faulty:
        """Returns a number that raises an error of this text while there is no such file."""
        number = cls(value)
        number.text, number.file = text, file
        return number

    def __lt__(self, other: float) -> bool:
        if not self.file.exists():
            self.file.touch()
            raise_fault(self.text)
        return super().__lt__(other)
