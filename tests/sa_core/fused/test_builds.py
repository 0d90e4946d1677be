from __future__ import annotations

import ctypes
import tomllib
from pathlib import Path

import pytest

import sa_core

PROJECT = Path(__file__).parents[3] / "pyproject.toml"
LIBRARIES = sorted(Path(sa_core.__path__[0]).glob("fused/_*.so"))


def test_every_library_has_a_separate_source_file() -> None:
    # Libraries are built in parallel with one object file per source: with a shared source, one library could be linked
    # with the code of another.
    extensions = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["setuptools"]["ext-modules"]
    sources = [source for extension in extensions for source in extension["sources"]]
    assert len(set(sources)) == len(sources) == 3


@pytest.mark.skipif(not LIBRARIES, reason="the installation has built no kernels")
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name.partition(".")[0])
def test_each_library_has_the_operator(library: Path) -> None:
    assert ctypes.CDLL(str(library)).shuffle_attention
