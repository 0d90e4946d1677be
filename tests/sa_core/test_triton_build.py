"""What Triton needs of a machine at first use, really missing here: a compiler, Python's headers, both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sa_core.triton_build import reason_against_building, reason_against_triton
from tests.conftest import ROOT
from tests.wording import worded

needs_compiler = pytest.mark.skipif(reason_against_building() is not None, reason="needs a C compiler")
needs_triton = pytest.mark.skipif(reason_against_triton() == worded("fused.no_triton"), reason="needs triton")

# What a GPU's machine does, as far as that is without one: torch is told that there is a GPU, and tensors on it have
# shapes but no values.
ON_A_GPU = """
import json, sys, warnings
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
torch.cuda.is_available = lambda: True
from sa_core import ShuffleAttention
from sa_core.errors import OptionError

class Names(TorchDispatchMode):
    names = set()
    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.names.add(function.name())
        return function(*arguments, **(options or {}))

found = {}
with warnings.catch_warnings(record=True) as warned, FakeTensorMode(), torch.no_grad():
    warnings.simplefilter("always")
    module = ShuffleAttention(16, 2, device="cuda")
    x = torch.empty(2, 16, 4, 4, device="cuda")
    with Names() as names:
        for _ in range(3):
            module(x)
    found["by kernels"] = any("sa_core::" in name for name in names.names)
    found["reason"] = module.reason_against(torch.float32)
    module.fuse("on")
    try:
        module(x)
    except OptionError as error:
        found["refused"] = str(error)
found["warned"] = [str(warning.message) for warning in warned]
print(json.dumps(found))
"""


@pytest.fixture(autouse=True)
def _found_anew() -> Iterator[None]:
    reason_against_building.cache_clear()
    yield
    reason_against_building.cache_clear()


def on_a_gpu(variables: Mapping[str, str]) -> dict[str, Any]:
    """Runs shuffle attention as on a GPU, in a process that has these environment variables and no others."""
    done = subprocess.run(
        [sys.executable, "-c", ON_A_GPU],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), **variables},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@needs_compiler
def test_a_machine_with_a_compiler_and_headers_can_build() -> None:
    assert reason_against_building() is None


def test_without_a_compiler_nothing_can_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    assert reason_against_building() == worded("fused.no_c_compiler")


@pytest.mark.parametrize("compiler", ["", "no-such-compiler"])
def test_a_compiler_that_is_named_and_not_there_is_said(monkeypatch: pytest.MonkeyPatch, compiler: str) -> None:
    monkeypatch.setenv("CC", compiler)
    assert worded("fused.not_run", compiler=compiler or "CC") in str(reason_against_building())


@needs_compiler
def test_without_the_headers_of_python_nothing_can_be_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paths = sysconfig.get_paths() | {"include": str(tmp_path)}
    monkeypatch.setattr(sysconfig, "get_paths", lambda *_: paths)
    assert reason_against_building() == worded("fused.no_headers", folder=tmp_path)


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'ld: cannot find -lc' >&2\nexit 1\n")
    compiler.chmod(0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_paths", lambda *_: {"include": str(tmp_path)})
    monkeypatch.setenv("CC", str(compiler))
    assert worded("fused.compiler_fails", compiler=compiler, said="ld: cannot find -lc") == reason_against_building()


def test_the_interpreter_builds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert reason_against_triton() in (None, worded("fused.no_triton"))


@needs_triton
def test_without_a_compiler_torch_computes_it_on_a_gpu_and_says_why_once() -> None:
    found = on_a_gpu({"PATH": ""})
    reason = worded("fused.no_kernels", device="cuda") + worded("fused.no_c_compiler")
    assert not found["by kernels"]
    assert found["reason"] == reason
    assert found["refused"] == f"fused=on {worded('fused.unavailable')}: {reason}; " + worded(
        "errors.valid", names="auto, off"
    )
    assert len(found["warned"]) == 1
    assert worded("fused.no_c_compiler") in found["warned"][0]


@needs_triton
@needs_compiler
def test_with_a_compiler_kernels_compute_it_on_a_gpu() -> None:
    found = on_a_gpu({"PATH": os.environ["PATH"]})
    assert found["by kernels"]
    assert found["reason"] is None
    assert found["warned"] == []
