from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ablations.common import machine
from ablations.common.errors import UsageError


def test_the_machine_is_described_without_importing_torch() -> None:
    code = (
        "from ablations.common import machine; import sys; print(machine.environment()); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'torch'" in done.stdout


@pytest.mark.parametrize(
    ("flags", "precision"), [({"avx2"}, "fp32"), ({"avx512_bf16"}, "bf16"), ({"amx_bf16", "avx2"}, "bf16")]
)
def test_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch, flags: set[str], precision: str) -> None:
    monkeypatch.setattr(machine, "_cpu_flags", lambda: flags)
    assert machine.resolve_precision("auto", "cpu") == precision
    assert machine.resolve_precision("fp32", "cpu") == "fp32"


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_precision_follows_the_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(machine, "_gpus", lambda: (("a GPU", capability),))
    assert machine.resolve_precision("auto", "cuda") == precision


@pytest.mark.parametrize(("built", "fused"), [(["_avx2.cpython-311.so"], "on"), ([], "off")])
def test_kernels_are_taken_where_the_installation_has_built_some(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, built: list[str], fused: str
) -> None:
    (tmp_path / "fused").mkdir()
    for name in built:
        (tmp_path / "fused" / name).touch()
    monkeypatch.setattr(machine.sa_core, "__path__", [str(tmp_path)])
    assert machine.resolve_fused("auto", "cpu") == fused
    assert machine.resolve_fused("off", "cpu") == "off"
    if built:
        assert machine.resolve_fused("on", "cpu") == "on"
    else:
        with pytest.raises(
            UsageError, match=r"train\.fused=on: there are no kernels for cpu here: .* no C\+\+ compiler"
        ):
            machine.resolve_fused("on", "cpu")


def test_the_commit_tells_changed_files_from_clean_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
