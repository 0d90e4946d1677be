from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
