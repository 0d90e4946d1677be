"""Hides instructions that an AVX2 processor lacks; Python imports it at startup if this folder is on its path."""

import re
from pathlib import Path

_read_text = Path.read_text


def _read_as_avx2(path: Path, *args: str | None, **kwargs: str | None) -> str:
    text = _read_text(path, *args, **kwargs)
    return re.sub(r" (?:avx512|amx)\w*", "", text) if str(path) == "/proc/cpuinfo" else text


Path.read_text = _read_as_avx2  # type: ignore[method-assign]
