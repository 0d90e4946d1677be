from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any, cast

import pytest

from ablations.common import machine


def test_the_machine_is_described_without_importing_torch() -> None:
    code = (
        "import sys; from ablations.common.machine import environment;"
        "print(environment()); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'torch'" in done.stdout


def test_the_commit_is_marked_if_files_are_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "ablations"
    package.mkdir()
    (package / "machine.py").write_text("")
    monkeypatch.setattr(machine, "__file__", str(package / "machine.py"))
    commit = machine.git_commit.__wrapped__
    assert commit() is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    clean = commit()
    assert clean is not None
    assert len(clean) == 40
    (package / "machine.py").write_text("changed")
    assert commit() == f"{clean}+changes"


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake NVML with an old and a new GPU; handles are indices."""
    nvml = cast(Any, types.ModuleType("pynvml"))
    nvml.nvmlInit = lambda: None
    nvml.nvmlDeviceGetCount = lambda: 2
    nvml.nvmlDeviceGetHandleByIndex = lambda index: index
    nvml.nvmlDeviceGetHandleByUUID = ["GPU-12ab", "GPU-34cd"].index
    nvml.nvmlDeviceGetUUID = lambda handle: ("GPU-12ab", "GPU-34cd")[handle]
    nvml.nvmlDeviceGetName = lambda handle: ("old", "new")[handle]
    nvml.nvmlDeviceGetCudaComputeCapability = lambda handle: ((7, 5), (9, 0))[handle]
    nvml.nvmlDeviceGetMemoryInfo = lambda handle: types.SimpleNamespace(used=(100, 20)[handle])
    nvml.nvmlDeviceGetClockInfo = lambda handle, _: (1500, 1980)[handle]
    nvml.NVML_CLOCK_SM = 1
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(machine, "gpus", machine.gpus.__wrapped__)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("visible", "names", "used"),
    [
        (None, ["old", "new"], 120),
        ("1", ["new"], 20),
        ("1,0", ["new", "old"], 120),
        ("GPU-34", ["new"], 20),
        ("0, 7, 1", ["old"], 100),
        ("", [], 0),
        ("-1", [], 0),
    ],
)
def test_gpus_are_those_that_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str], used: int
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [name for name, _ in machine.gpus()] == names
    assert machine.gpu_memory_used() == used


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("visible", [None, "0", "1"])
@pytest.mark.parametrize(("gpu", "clock"), [("GPU-12ab", "1500"), ("GPU-34cd", "1980"), ("GPU-56ef", "")])
def test_the_clock_is_that_of_the_gpu_that_is_named(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, gpu: str, clock: str
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.clock_mhz(gpu) == clock


@pytest.mark.parametrize(
    ("visible", "number", "names"),
    [
        (None, 0, []),
        (None, 2, ["0", "1"]),
        ("3, 1", 2, ["3", "1"]),
        ("GPU-34cd", 1, ["GPU-34cd"]),
        ("0,9,1", 1, ["0"]),  # CUDA ignores what follows the first name that it does not know
        ("", 0, []),
    ],
)
def test_cuda_devices_have_the_names_that_make_one_of_them_visible(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, number: int, names: list[str]
) -> None:
    class Driver:
        """Counts devices; memory is written to as by the real one."""

        def cuInit(self, flags: int) -> int:  # noqa: N802
            return 0 if number else 100 + flags

        def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
            count._obj.value = number
            return 0

    monkeypatch.setattr(machine.ctypes, "CDLL", lambda _: Driver())
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.cuda_devices() == names


def test_without_a_driver_there_are_no_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise OSError("no libcuda.so.1")

    monkeypatch.setattr(machine.ctypes, "CDLL", fail)
    assert machine.cuda_devices() == []
    assert not machine.has_cuda_driver()


@pytest.mark.cuda
def test_cuda_devices_are_those_of_torch() -> None:
    import torch

    assert len(machine.cuda_devices()) == torch.cuda.device_count()


@pytest.mark.usefixtures("two_gpus")
def test_gpus_that_are_alike_are_described_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.environment()["gpu"] == "old, new"
    sys.modules["pynvml"].nvmlDeviceGetName = lambda _: "new"  # type: ignore[attr-defined]
    assert machine.environment()["gpu"] == "new"
