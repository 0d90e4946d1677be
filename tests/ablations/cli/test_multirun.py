from __future__ import annotations

import re
from pathlib import Path

import pytest

from ablations import cli
from ablations.common.errors import UsageError
from ablations.config import Config
from tests.conftest import TINY, Command
from tests.wording import worded

MODELS = ("resnet8", "resnet20", "resnet56")
LINE = ("-m", f"model={','.join(MODELS)}", "train.epochs=3")


def call(outcomes: dict[str, int | BaseException]) -> tuple[int, list[str]]:
    """Runs a verb over several models with the given outcomes (default 0); returns the status and the commands."""
    commands = []

    def act(config: Config, command: str) -> int:
        commands.append(command)
        outcome = outcomes.get(config.model.name, 0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return cli.main("run", "Does it.", act, LINE), commands


def test_studies_are_run_one_after_the_other_with_separate_commands(capsys: pytest.CaptureFixture[str]) -> None:
    status, commands = call({})
    assert status == 0
    assert commands == [f"python -m ablations.run model={model} train.epochs=3" for model in MODELS]
    printed = capsys.readouterr()
    assert printed.err == ""
    for number, model in enumerate(MODELS, 1):
        override, name = f"model={model}", f"groups-digits-{model}"
        assert worded("cli.job", number=number, jobs=3, name=name, own=override) in printed.out


@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [
        (1, 1, ""),
        (2, 2, ""),
        (UsageError("storage", None, "is gone"), 2, "error: storage: is gone"),
        (RuntimeError("planted"), 1, "RuntimeError: planted"),
    ],
)
def test_a_failed_study_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str], outcome: int | BaseException, status: int, message: str
) -> None:
    ended, commands = call({"resnet20": outcome})
    assert (ended, len(commands)) == (1, 3)
    error = capsys.readouterr().err
    assert message in error
    names = f"groups-digits-resnet20 (exit status {status})"
    assert worded("cli.jobs_failed", failed=1, jobs=3, names=names) in error
    assert call(dict.fromkeys(MODELS, outcome))[0] == status


@pytest.mark.parametrize("outcome", [cli.INTERRUPTED_STATUS, KeyboardInterrupt(), cli.BROKEN_PIPE_STATUS])
def test_a_signal_stops_all_studies(outcome: int | BaseException) -> None:
    status, commands = call({"resnet20": outcome})
    assert status == (outcome if isinstance(outcome, int) else cli.INTERRUPTED_STATUS)
    assert len(commands) == 2


def test_errors_are_reported_before_the_first_study_is_run() -> None:
    studies = []

    def act(config: Config, command: str) -> int:
        studies.append((config, command))
        return 0

    assert cli.main("run", "Does it.", act, ["-m", "model=resnet8,resnetx"]) == cli.USAGE_STATUS
    assert studies == []


def test_a_refused_study_does_not_stop_the_others(tmp_path: Path, command: Command) -> None:
    # attention.groups cannot be set in a sweep that varies it.
    options = [*TINY[1:], "tracking.enabled=false", f"results_dir={tmp_path}"]
    done = command("plan", "-m", "sweep=groups,shuffle", "attention.groups=2", *options)
    assert done.returncode == 1
    assert re.search(r"^error: attention\.groups", done.stderr, re.M), done.stderr
    names = "groups-digits-resnet8 (exit status 2)"
    assert done.stderr.rstrip().endswith(worded("cli.jobs_failed", failed=1, jobs=2, names=names))
    assert "python -m ablations.plan sweep=shuffle " in (tmp_path / "shuffle-digits-resnet8" / "plan.md").read_text()
    assert not (tmp_path / "groups-digits-resnet8" / "plan.md").exists()
