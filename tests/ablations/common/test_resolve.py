from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ablations.common import machine
from ablations.common.errors import UsageError
from ablations.common.resolve import (
    check_compile,
    resolve_device,
    resolve_fused,
    resolve_memory_format,
    resolve_precision,
    resolve_threads,
)
from sa_core.triton_build import reason_against_building
from tests.wording import refusal, worded


@pytest.mark.parametrize(
    ("flags", "precision"), [({"avx2"}, "fp32"), ({"avx512_bf16"}, "bf16"), ({"amx_bf16", "avx2"}, "bf16")]
)
def test_precision_depends_on_the_processor(monkeypatch: pytest.MonkeyPatch, flags: set[str], precision: str) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: flags)
    assert resolve_precision("auto", "cpu") == precision
    assert resolve_precision("fp32", "cpu") == "fp32"


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_precision_depends_on_the_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert resolve_precision("auto", "cuda") == precision


@pytest.mark.parametrize(("built", "fused"), [(["_avx2.cpython-311.so"], "on"), ([], "off")])
def test_kernels_are_used_if_the_installation_has_compiled_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, built: list[str], fused: str
) -> None:
    (tmp_path / "fused").mkdir()
    for name in built:
        (tmp_path / "fused" / name).touch()
    monkeypatch.setattr(machine.sa_core, "__path__", [str(tmp_path)])
    assert resolve_fused("auto", "cpu") == fused
    assert resolve_fused("off", "cpu") == "off"
    if built:
        assert resolve_fused("on", "cpu") == "on"
    else:
        with pytest.raises(
            UsageError, match=refusal("train.fused=on", "fused.no_kernels", device="cpu", then="no C++ compiler")
        ):
            resolve_fused("on", "cpu")


@pytest.fixture
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with Triton, without a C compiler."""
    monkeypatch.setitem(sys.modules, "triton", sys.modules.get("triton", types.SimpleNamespace(__spec__=object())))
    monkeypatch.setenv("PATH", "")
    for name in ("CC", "TRITON_INTERPRET"):
        monkeypatch.delenv(name, raising=False)
    reason_against_building.cache_clear()
    yield
    reason_against_building.cache_clear()


@pytest.mark.usefixtures("_no_compiler")
def test_on_a_gpu_without_a_compiler_auto_does_without_kernels_and_on_is_refused() -> None:
    assert resolve_fused("auto", "cuda") == "off"
    assert resolve_fused("off", "cuda") == "off"
    expected = refusal("train.fused=on", "fused.no_kernels", device="cuda", then=worded("fused.no_c_compiler"))
    with pytest.raises(UsageError, match=expected):
        resolve_fused("on", "cuda")


@pytest.mark.usefixtures("_no_compiler")
def test_networks_are_not_compiled_for_a_gpu_without_a_compiler() -> None:
    check_compile("none", "cuda")
    check_compile("default", "cpu")
    expected = refusal("train.compile=default", "fused.unavailable", then=worded("fused.no_c_compiler"), valid="none")
    with pytest.raises(UsageError, match=expected):
        check_compile("default", "cuda")


@pytest.mark.parametrize(
    ("option", "device", "side", "threads"),
    [
        (3, "cuda", 224, 3),
        ("auto", "cuda", 224, 1),
        ("auto", "cpu", 64, 1),
        ("auto", "cpu", 65, 7),
    ],
)
def test_threads_depend_on_the_device_and_the_resolution(
    monkeypatch: pytest.MonkeyPatch, option: int | str, device: str, side: int, threads: int
) -> None:
    monkeypatch.setattr(machine, "available_cores", lambda: 7)
    assert resolve_threads(option, device, side) == threads


@pytest.mark.parametrize(
    ("option", "device", "layout"),
    [("auto", "cuda", "channels_last"), ("auto", "cpu", "contiguous"), ("channels_last", "cpu", "channels_last")],
)
def test_the_memory_format_depends_on_the_device(option: str, device: str, layout: str) -> None:
    assert resolve_memory_format(option, device) == layout


def test_a_cpu_is_resolved_without_importing_torch() -> None:
    code = (
        "from ablations.common import machine, resolve; machine.has_cuda_driver = bool; import sys;"
        "print(resolve.resolve_device('auto'), resolve.resolve_device('cpu'), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "cpu cpu False\n"


def test_a_gpu_is_found_without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", tuple)
    monkeypatch.setattr(machine, "has_cuda_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == "cuda"


def test_a_missing_cuda_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=refusal("device=cuda", "machine.no_cuda", valid="auto, cpu")):
        resolve_device("cuda")
