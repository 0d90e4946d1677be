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
    """Runs a verb over several models, of which some have an outcome; returns the status and the commands."""
    commands = []

    def act(config: Config, command: str) -> int:
        commands.append(command)
        outcome = outcomes.get(config.model.name, 0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return cli.main("run", "Does it.", act, LINE), commands


def test_studies_are_run_one_after_the_other_by_commands_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    status, commands = call({})
    assert status == 0
    assert commands == [f"python -m ablations.run model={model} train.epochs=3" for model in MODELS]
    printed = capsys.readouterr()
    assert printed.err == ""
    for number, model in enumerate(MODELS, 1):
        own, name = f"model={model}", f"groups-digits-{model}"
        assert worded("cli.job", number=number, jobs=3, name=name, own=own) in printed.out


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (1, 1, ""),
        (2, 2, ""),
        (UsageError("storage", None, "is gone"), 2, "error: storage: is gone"),
        (RuntimeError("planted"), 1, "RuntimeError: planted"),
    ],
)
def test_one_that_fails_costs_one(
    capsys: pytest.CaptureFixture[str], outcome: int | BaseException, status: int, said: str
) -> None:
    ended, commands = call({"resnet20": outcome})
    assert (ended, len(commands)) == (1, 3)
    error = capsys.readouterr().err
    assert said in error
    names = f"groups-digits-resnet20 (exit status {status})"
    assert worded("cli.jobs_failed", failed=1, jobs=3, names=names) in error
    assert call(dict.fromkeys(MODELS, outcome))[0] == status


@pytest.mark.parametrize("outcome", [cli.INTERRUPTED_STATUS, KeyboardInterrupt(), cli.BROKEN_PIPE_STATUS])
def test_a_signal_ends_all(outcome: int | BaseException) -> None:
    status, commands = call({"resnet20": outcome})
    assert status == (outcome if isinstance(outcome, int) else cli.INTERRUPTED_STATUS)
    assert len(commands) == 2


def test_what_can_be_refused_is_refused_before_the_first_study() -> None:
    ran = []

    def act(config: Config, command: str) -> int:
        ran.append((config, command))
        return 0

    assert cli.main("run", "Does it.", act, ["-m", "model=resnet8,resnetx"]) == cli.USAGE_STATUS
    assert ran == []


def test_a_real_study_that_is_refused_costs_itself(tmp_path: Path, command: Command) -> None:
    # A sweep of groups cannot have their number set by itself; one of shuffles can.
    options = [*TINY[1:], "tracking.enabled=false", f"results_dir={tmp_path}"]
    done = command("plan", "-m", "sweep=groups,shuffle", "attention.groups=2", *options)
    assert done.returncode == 1
    assert re.search(r"^error: attention\.groups", done.stderr, re.M), done.stderr
    names = "groups-digits-resnet8 (exit status 2)"
    assert done.stderr.rstrip().endswith(worded("cli.jobs_failed", failed=1, jobs=2, names=names))
    assert "python -m ablations.plan sweep=shuffle " in (tmp_path / "shuffle-digits-resnet8" / "plan.md").read_text()
    assert not (tmp_path / "groups-digits-resnet8" / "plan.md").exists()
