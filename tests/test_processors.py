"""The emulation of another processor applies to child processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import processors

CODE = """
import torch
from ablations.common.resolve import resolve_precision
print(torch.backends.cpu.get_cpu_capability(), resolve_precision("auto", "cpu"))
"""


def test_a_process_without_avx512_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in processors.PROCESSORS["avx2"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", f"{processors.FOLDER / 'avx2'}:{processors.FOLDER.parents[1]}")
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    capability, precision = done.stdout.split()
    assert capability in ("AVX2", "DEFAULT")  # DEFAULT without AVX2
    assert precision == "fp32"
