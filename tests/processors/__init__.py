"""Runs tests as on another processor: `pytest --as-processor avx2` is a machine without AVX-512 and bf16.

Torch's libraries choose their instructions by environment variables, the suite chooses the precision by
`/proc/cpuinfo`. Both reach the processes that tests start: variables are inherited, and a folder on PYTHONPATH
has a `sitecustomize` that hides the flags of missing instructions. What stays this machine's: its speed.
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
    """Makes this process, before torch has computed anything, and those that it starts compute as `processor`."""
    os.environ.update(PROCESSORS[processor])
    # What torch has compiled for this machine is found again under the same key.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"torchinductor-as-{processor}")
    put_on_path(FOLDER / processor)
    runpy.run_path(str(FOLDER / processor / "sitecustomize.py"))


def put_on_path(folder: Path) -> None:
    """Lets the processes that this one starts import what lies in a folder."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
