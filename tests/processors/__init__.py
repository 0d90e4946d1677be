"""Runs tests as on another processor: `pytest --as-processor avx2` emulates a machine without AVX-512 and bf16.

Environment variables select the instructions of torch's libraries; the suite selects the precision by `/proc/cpuinfo`.
Both also apply to processes that tests start: variables are inherited, and a folder on PYTHONPATH has a `sitecustomize`
that hides the flags of missing instructions. Speed is not emulated.
"""

from __future__ import annotations

import os
import runpy
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
PROCESSORS = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}


def imitate(processor: str) -> None:
    """Makes this process and its children compute as `processor`; to be called before torch computes anything."""
    os.environ.update(PROCESSORS[processor])
    # A separate cache, as the keys of compiled code do not depend on the emulated processor.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"torchinductor-as-{processor}")
    put_on_path(FOLDER / processor)
    runpy.run_path(str(FOLDER / processor / "sitecustomize.py"))


def put_on_path(folder: Path) -> None:
    """Adds a folder to the PYTHONPATH of child processes."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
