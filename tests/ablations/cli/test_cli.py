from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ablations import cli
from ablations.config import Config
from ablations.data.source import DataError
from tests.builders.imports import HEAVY, imported_by
from tests.wording import refusal, worded


def call(*arguments: str) -> int:
    def act(config: Config, command: str) -> int:
        print(config.train.epochs, command)
        return 7

    return cli.main("run", "Does it.", act, arguments)


def test_a_verb_is_called_with_its_configuration_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train.epochs=3", "sweep.factors.attention.groups=[2, 4]") == 7
    assert (
        capsys.readouterr().out == "3 python -m ablations.run train.epochs=3 'sweep.factors.attention.groups=[2, 4]'\n"
    )


def test_an_invalid_value_is_one_message_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train.epochs=none") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: train.epochs=none: ")
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "--hlep",
            "error: "
            + refusal("--hlep", "options.no_such", what="flag", near="--help", valid="--help, --version, --cfg"),
        ),
        ("--config-dir", "error: " + refusal("--config-dir", "cli.needs_folder")),
    ],
)
def test_unknown_flags_are_refused(capsys: pytest.CaptureFixture[str], argument: str, message: str) -> None:
    assert call(argument) == 2
    assert re.match(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("verb", "typed", "owner"),
    [
        ("run", "bench.images=3", "bench"),
        ("run", "plan.pilot=2", "plan"),
        ("run", "+plan.pilot=2", "plan"),
        ("analyze", "plan.effect=1", "plan"),
        ("bench", "plan.pilot=2", "plan"),
        ("plan", "bench.images=3", "bench"),
        ("analyze", "plan={pilot: 2}", "plan"),
        ("run", "figures=cams", "analyze"),
        ("plan", "figures=[all,-cams]", "analyze"),
        ("bench", "figures=nonsense", "analyze"),
        ("bench", "recipes=[quick,cifar]", "plan`, `python -m ablations.run` and `python -m ablations.analyze"),
    ],
)
def test_options_of_another_verb_are_refused(
    capsys: pytest.CaptureFixture[str], verb: str, typed: str, owner: str
) -> None:
    assert cli.main(verb, "Does it.", lambda *_: 0, ["train.epochs=3", typed]) == 2
    name, _, value = typed.partition("=")
    reason = worded("options.other_verb", owner=owner, verb=verb)
    assert capsys.readouterr().err == f"error: {name}={value}: {reason}\n"


def test_a_verb_has_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    def act(config: Config, _: str) -> int:
        return config.plan.pilot

    assert cli.main("plan", "Does it.", act, ["plan.pilot=4"]) == 4
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("verb", "is_listed"), [("run", False), ("analyze", False), ("plan", True)])
def test_the_help_of_a_verb_only_lists_its_options(
    capsys: pytest.CaptureFixture[str], verb: str, is_listed: bool
) -> None:
    assert cli.main(verb, "Does it.", lambda *_: 0, ["--help", "replicates=auto"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert ("plan.pilot=0" in text) == ("plan.effect=0.0" in text) == is_listed
    assert ("figures=all" in text) == (verb == "analyze")
    assert "weights=first" in text
    assert "bench." not in text
    for part in (
        "replicates=auto",
        worded("help.auto"),
        "replicates.max=32",
        "margin=auto",
    ):
        assert part in text
    assert "replicates_max" not in text


def test_errors_of_data_sets_are_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    def act(*_: object) -> int:
        raise DataError("data.root", "data", "no such folder")

    assert cli.main("run", "Does it.", act, []) == cli.USAGE_STATUS
    assert capsys.readouterr().err == f"error: data.root=data: {worded('options.no_folder')}\n"


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (KeyboardInterrupt(), cli.INTERRUPTED_STATUS, worded("interrupts.finished") + "\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "results"),
            cli.USAGE_STATUS,
            "error: results: " + worded("interrupts.failed", cause="No space left on device") + "\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "two\nlines\x1b"),
            cli.USAGE_STATUS,
            "error: two\\nlines\\x1b: " + worded("interrupts.failed", cause="No space left on device") + "\n",
        ),
    ],
)
def test_interrupts_and_full_disks_are_a_message_and_a_status(
    capsys: pytest.CaptureFixture[str], raised: BaseException, status: int, message: str
) -> None:
    def run() -> int:
        raise raised

    assert cli.exit_status(run) == status
    assert capsys.readouterr().err == message


def test_defects_are_raised() -> None:
    def act(config: Config, command: str) -> int:
        raise RuntimeError(command + config.study)

    with pytest.raises(RuntimeError, match=r"python -m ablations\.run"):
        cli.main("run", "Does it.", act, [])


def test_the_help_lists_sweeps_with_questions_and_every_option_with_its_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("--help", "train.epochs=9") == 0
    text = capsys.readouterr().out
    for part in ("Does it.", "python -m ablations.run [group=choice", "sweep=groups  ", "How many groups should",
                 "train.epochs=9", worded("help.epochs"), "device=auto"):  # fmt: skip
        assert part in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("columns", [80, 100])
def test_the_help_is_as_wide_as_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert call("--help") == 0
    lines = capsys.readouterr().out.splitlines()
    wrapped = [line for line in lines if line.startswith(" " * 34)]
    assert columns - 20 < max(map(len, wrapped)) <= columns


def test_the_users_sweeps_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text("question: Mine?\n")
    assert call("--help", f"--config-dir={tmp_path}", "sweep=mine") == 0
    assert "Mine?" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["run", "plan", "analyze", "bench", "claims"])
@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_and_version_import_no_slow_packages(verb: str, arguments: list[str]) -> None:
    assert not imported_by(f"ablations.{verb}", *arguments) & HEAVY


def test_imports_of_a_command_are_detected() -> None:
    assert {"ablations", "hydra"} <= imported_by("ablations.run", "--help")


def test_a_design_is_checked_without_importing_slow_packages() -> None:
    code = (
        "import sys; from ablations.config.compose import compose_config; from ablations.design import make_design;"
        "make_design(compose_config(['device=cpu']));"
        "sys.exit(', '.join({'torch', 'mlflow', 'optuna', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_pipe_does_not_cause_a_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ablations.run", "--help"], stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (cli.BROKEN_PIPE_STATUS, b"")
