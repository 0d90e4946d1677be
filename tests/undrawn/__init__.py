"""Figures without drawing, for tests that do not check their looks: drawing takes most of the time of a small study.

A folder on PYTHONPATH has a `sitecustomize` that applies this to processes in whose environment `VARIABLE` is set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

FOLDER = Path(__file__).parent
VARIABLE = "ABLATIONS_TESTS_UNDRAWN"


def save_pixels(_: Any, file: Path | BinaryIO, format: str | None = None, **options: object) -> None:
    """Writes a few black pixels; takes the place of matplotlib's `Figure.savefig`."""
    from PIL import Image

    del options
    Image.new("RGB", (8, 8)).save(file, format)
