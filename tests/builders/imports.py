"""The imports of a command, as reported by `python -X importtime`."""

from __future__ import annotations

import subprocess
import sys

# Packages that take up to seconds to import.
HEAVY = frozenset(
    {"torch", "torchvision", "mlflow", "optuna", "pandas", "matplotlib", "scipy", "seaborn", "ray", "timm"}
)


def imported_by(module: str, *arguments: str) -> set[str]:
    """Returns the packages that `python -m module` imports."""
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, *arguments], capture_output=True, text=True, check=True
    )
    lines = [line for line in process.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
