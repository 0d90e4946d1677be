"""Completion of command lines: the candidates, and the installed functions in real bash, zsh and fish."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ablations import cli
from ablations.cli.completion import complete
from ablations.common.errors import UsageError
from ablations.config.groups import group_choices
from tests.builders.imports import HEAVY, imported_by
from tests.builders.terminals import spawn
from tests.wording import refusal

# Commands that start a shell without the user's files, and that install the function.
STARTS = {
    "bash": (["bash", "--norc", "--noprofile"], 'bind "set show-all-if-ambiguous on"; eval "$({} -sc install=bash)"'),
    "zsh": (
        ["zsh", "-f"],
        'autoload -Uz compinit bashcompinit; compinit -u -D; bashcompinit; eval "$({} -sc install=zsh)"',
    ),
    "fish": (["fish", "--no-config", "--private"], "{} -sc install=fish | source"),
}


def completed(line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the completions of the last word of a line."""
    monkeypatch.setenv("COMP_LINE", f"ablations {line}")
    complete(["query=fish"], cli.VERBS)
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", cli.VERBS),
        ("an", ["analyze"]),
        ("run trai", ["train.", "train="]),
        ("run model=resnet1", ["model=resnet101", "model=resnet18"]),
        ("run train.epochs=3 train.prec", ["train.precision="]),
        ("run train.precision=", ["train.precision=auto", "train.precision=bf16", "train.precision=fp32"]),
        ("run train=short train.epochs=", ["train.epochs=2"]),
        ("run data.flip=t", ["data.flip=true"]),
        ("run repl", ["replicates.max=", "replicates="]),
        ("run replicates.m", []),
        ("run launcher=ray launcher.gpus", ["launcher.gpus_per_cell="]),
        ("run plan.", []),
        ("plan plan.p", ["plan.pilot="]),
        ("run bench", []),
        ("bench bench=q", ["bench=quick"]),
        ("run -m --config-dir . model=resnet1", ["model=resnet101", "model=resnet18"]),
        ("run --mult", ["--multirun"]),
        ("run train=nope seed", ["seed="]),
        ("run --nope seed", []),
        ("rnu seed", []),
    ],
)
def test_a_line_is_completed(
    line: str, words: Sequence[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = line.rpartition(" ")[2]
    assert [word for word in completed(line, capsys, monkeypatch) if word.startswith(last)] == list(words)


def test_choices_in_the_users_folder_are_completed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text("question: Mine?\n")
    words = completed(f"run -cd {tmp_path} sweep=", capsys, monkeypatch)
    assert words == [f"sweep={name}" for name in sorted([*group_choices()["sweep"], "mine"])]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], refusal("--shell-completion", "cli.action", valid="install, uninstall, query")),
        (["instal=bash"], refusal("--shell-completion=instal=bash", "cli.action", near="install")),
        (["install=bash", "x"], refusal("--shell-completion=install=bash x", "cli.action")),
        (["install=tcsh"], refusal("install=tcsh", "cli.no_shell", then="valid: bash, fish, zsh")),
    ],
)
def test_an_unknown_action_or_shell_is_one_message(words: Sequence[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        complete(words, cli.VERBS)
    assert re.match(message, str(caught.value).replace("? valid", "; valid"))


def test_completion_imports_no_slow_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "ablations run model=")
    assert not imported_by("ablations", "-sc", "query=bash") & HEAVY


@pytest.mark.parametrize("shell", list(STARTS))
def test_a_real_shell_completes(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    script = tmp_path / "ablations"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m ablations "$@"\n')
    script.chmod(0o755)
    program, install = STARTS[shell]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    child = spawn(program, columns=150, cwd=tmp_path, echo=True, PATH=path, PS1="$ ", HOME=str(tmp_path))
    child.timeout = 60
    child.sendline(install.format("ablations") + "; echo rea''dy")
    child.expect_exact("ready")
    for line, listed, then in (
        ("ablations anal", "", "yze"),
        ("ablations run model=resnet1", "resnet101", "resnet18"),
        ("ablations run train.prec", "train.precision", "=fp32"),
        ("ablations run --multir", "", "un"),
    ):
        child.send(f"{line}\t\t")
        child.expect_exact(then)
        assert listed in str(child.before)
        child.sendcontrol("u")  # clears the line
    child.close(force=True)


@pytest.mark.parametrize("shell", list(STARTS))
def test_a_function_can_be_uninstalled(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    complete([f"uninstall={shell}"], cli.VERBS)
    assert "hydra_" in capsys.readouterr().out
