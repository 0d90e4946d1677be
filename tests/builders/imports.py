"""What a command imports, as Python itself reports it."""

from __future__ import annotations

import subprocess
import sys

# Packages that take a large part of a second or more to import.
HEAVY = frozenset(
    {"torch", "torchvision", "mlflow", "optuna", "pandas", "matplotlib", "scipy", "seaborn", "ray", "timm"}
)


def imported_by(module: str, *arguments: str) -> set[str]:
    """Returns the packages that `python -m module` imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, *arguments], capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
