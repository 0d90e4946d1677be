"""Real studies of several protocols, as small as possible."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from ablations import analyze, cli, load_multiverse, load_study, plan, run, run_multiverse
from ablations.common.console import make_console
from ablations.common.errors import UsageError
from ablations.common.parts import TRACEBACKS
from ablations.execution.runner import StudyRunner
from ablations.storage.access import study_names
from ablations.storage.study import FORMAT, open_store
from tests.conftest import TINY, Command
from tests.wording import refusal, worded

PROTOCOLS = "recipes=[quick,cifar]"
REPORT, QUICK, CIFAR = "groups-digits-resnet8-quick-vs-cifar", "groups-digits-resnet8", "groups-digits-resnet8-cifar"
OFF = ("tracking.enabled=false", "measure=off", "device=cpu")
ACTS = {
    "run": (run.run, run.run_several),
    "plan": (plan.plan, plan.plan_several),
    "analyze": (analyze.analyze, analyze.analyze_several),
}


def call(verb: str, folder: Path, *arguments: str) -> int:
    act, several = ACTS[verb]
    typed = [*TINY, *OFF, *arguments, f"results_dir={folder}"]
    return cli.main(verb, "Does it.", act, typed, act_on_several=several)


def stored(folder: Path, study: str) -> list[tuple[str, int]]:
    cells = open_store(f"sqlite:///{folder / 'optuna.db'}", study, create=False).cells()
    return sorted((cell.variant, cell.replicate) for cell in cells if cell.state.is_done)


def attempts(folder: Path, study: str) -> int:
    return len(open_store(f"sqlite:///{folder / 'optuna.db'}", study, create=False).cells())


def frame(folder: Path, name: str = REPORT) -> pd.DataFrame:
    return pd.read_csv(folder / name / "tables" / "protocols.csv")


WANTED = sorted((variant, replicate) for variant in ("none", "groups=1", "groups=4") for replicate in range(2))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two protocols, which tests must not modify."""
    folder = tmp_path_factory.mktemp("finished")
    assert call("run", folder, PROTOCOLS) == 0
    return folder


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "known")


def test_a_run_has_a_study_for_each_protocol_and_one_report(finished: Path) -> None:
    for study in (QUICK, CIFAR):
        assert stored(finished, study) == WANTED
        assert (finished / study / "report.md").exists()
    assert set(frame(finished)["protocol"]) == {"quick", "cifar"}
    assert (finished / REPORT / "figures" / "protocols.png").exists()
    store = open_store(f"sqlite:///{finished / 'optuna.db'}", CIFAR, create=False)
    assert store.protocol["train"]["learning_rate"] == 0.4
    assert "train=cifar" in store.attributes["command"]
    assert "recipes" not in store.attributes["command"]


def test_a_second_run_and_separate_runs_of_the_studies_train_nothing(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = frame(results)
    assert call("run", results, PROTOCOLS) == 0
    assert capsys.readouterr().out.count(worded("run.finished", cells=6)) == 2
    assert call("run", results, "train=cifar") == 0
    assert call("run", results, "train=quick") == 0
    assert capsys.readouterr().out.count(worded("run.finished", cells=6)) == 2
    pd.testing.assert_frame_equal(frame(results), before)


def test_an_additional_protocol_trains_only_its_study(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", results, "recipes=[quick,cifar,resnet20]") == 0
    assert capsys.readouterr().out.count(worded("run.finished", cells=6)) == 2
    assert stored(results, "groups-digits-resnet20") == WANTED
    assert set(frame(results, "groups-digits-quick-vs-cifar-vs-resnet20")["protocol"]) == {"quick", "cifar", "resnet20"}


def test_analyze_makes_the_same_report_from_the_store(results: Path) -> None:
    files = {
        path: path.read_bytes() for path in (results / REPORT).rglob("*.*") if path.suffix in (".csv", ".md", ".pdf")
    }
    assert len(files) == 4
    for path in files:
        path.unlink()
    before = [attempts(results, study) for study in (QUICK, CIFAR)]
    assert call("analyze", results, PROTOCOLS) == 0
    for path, content in files.items():
        again = path.read_bytes()
        assert again == content or path.name == "report.md"
    text = (results / REPORT / "report.md").read_text()
    assert "ablations.run" in text
    assert "ablations.analyze" not in text
    assert [attempts(results, study) for study in (QUICK, CIFAR)] == before


def test_analyze_reports_protocols_without_cells(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("analyze", results, "recipes=[quick,cifar,imagenet]") == 0
    assert worded("multiverse.lacking", protocols="imagenet") in capsys.readouterr().out
    assert study_names(f"sqlite:///{results / 'optuna.db'}") == [QUICK, CIFAR]


def test_a_missing_store_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("analyze", tmp_path, PROTOCOLS) == 2
    message = refusal(PROTOCOLS, "multiverse.unstored", advice="create them with `python -m ablations.run")
    assert re.match(f"error: {message}", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_plan_has_each_study_and_the_total_cost(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = [attempts(results, study) for study in (QUICK, CIFAR)]
    assert call("plan", results, PROTOCOLS, "replicates=3") == 0
    printed = capsys.readouterr().out
    assert worded("multiverse.protocol", number=2, protocols=2, name="cifar") in printed
    assert re.search(re.escape(worded("multiverse.total", protocols=2)) + r"about .* for 6 cells", printed)
    assert worded("multiverse.corrected", number=4) in printed
    for study in (QUICK, CIFAR):
        assert (results / study / "plan.md").exists()
    assert [attempts(results, study) for study in (QUICK, CIFAR)] == before


def test_a_protocol_that_cannot_run_does_not_affect_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / QUICK).write_text("no folder")
    assert call("run", tmp_path, PROTOCOLS) == 1
    printed = capsys.readouterr().out
    assert worded("multiverse.not_run", protocol="quick") in printed
    assert worded("multiverse.lacking", protocols="quick") in printed
    assert stored(tmp_path, CIFAR) == WANTED
    assert set(frame(tmp_path)["protocol"]) == {"cifar"}
    (tmp_path / QUICK).unlink()
    assert call("run", tmp_path, PROTOCOLS) == 0
    assert set(frame(tmp_path)["protocol"]) == {"quick", "cifar"}


def test_a_protocol_whose_run_fails_does_not_affect_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_study = StudyRunner.run

    def fail(runner: StudyRunner) -> int:
        if runner.config.study == QUICK:
            raise ValueError("planted")
        return run_study(runner)

    monkeypatch.setattr(StudyRunner, "run", fail)
    assert call("run", tmp_path, PROTOCOLS) == 1
    line = worded("not_made.part", name="study under quick", reason="ValueError: planted")
    assert line in capsys.readouterr().out
    assert line in (tmp_path / REPORT / "report.md").read_text(encoding="utf-8")
    assert "planted" in (tmp_path / REPORT / TRACEBACKS).read_text(encoding="utf-8")
    assert set(frame(tmp_path)["protocol"]) == {"cifar"}


@pytest.mark.parametrize("damage", ["another version", "damaged"])
def test_an_unreadable_study_affects_only_its_protocol(
    results: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for study, name in ((CIFAR, "cifar"), (QUICK, "quick")):
        store = open_store(f"sqlite:///{results / 'optuna.db'}", study, create=False)
        identity = store.attributes["identity"]
        store.remember("identity", identity | {"version": 1} if damage == "another version" else {"version": FORMAT})
        status = call("analyze", results, PROTOCOLS) if study == CIFAR or damage == "another version" else 2
        printed = capsys.readouterr()
        if study == CIFAR:
            assert status == 1
            assert worded("not_made.part", name=f"study under {name}", reason="") in printed.out
            assert set(frame(results)["protocol"]) == {"quick"}
        else:  # no study can be read
            assert status == 2


@pytest.mark.parametrize("part", ["draw_protocols", "protocols_table", "multiverse_sentences", "_caption"])
def test_a_failing_part_of_the_report_affects_only_that_part(
    results: Path, part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ablations.reporting import multiverse as report

    def fail(*_: object) -> None:
        raise ValueError("planted")

    shutil.rmtree(results / REPORT)
    monkeypatch.setattr(report, part, fail)
    assert call("analyze", results, PROTOCOLS) == 1
    assert "ValueError: planted" in capsys.readouterr().out
    assert (results / REPORT / "tables" / "protocols.csv").exists()
    assert (results / REPORT / "figures" / "protocols.png").exists() == (part != "draw_protocols")


def test_a_study_with_other_options_is_refused_before_training(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = attempts(results, QUICK)
    assert call("run", results, PROTOCOLS, "data.noise=3") == 2
    message = refusal(f"study={QUICK}", "multiverse.under", protocol="quick", reason="")
    assert re.match(f"error: {message}", capsys.readouterr().err)
    assert attempts(results, QUICK) == before


@pytest.mark.parametrize("verb", ["run", "plan", "analyze"])
def test_a_report_in_the_folder_of_a_study_is_refused(
    results: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(verb, results, PROTOCOLS, f"study={CIFAR}") == 2
    assert re.match("error: " + refusal(f"study={CIFAR}", "multiverse.taken"), capsys.readouterr().err)


def test_figures_of_a_single_study_are_refused_for_several(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("analyze", results, PROTOCOLS, "figures=forest") == 2
    assert re.match("error: " + refusal("figures=forest", "multiverse.one_study"), capsys.readouterr().err)


def test_python_runs_and_loads_several_protocols(results: Path) -> None:
    overrides = [*TINY, *OFF, PROTOCOLS, f"results_dir={results}"]
    made, loaded = run_multiverse(*overrides, console=make_console()), load_multiverse(*overrides)
    pd.testing.assert_frame_equal(made.frame, loaded.frame)
    assert list(made.studies) == ["quick", "cifar"]
    assert load_study(*TINY, *OFF, "train=cifar", f"results_dir={results}").design.study == CIFAR
    with pytest.raises(UsageError, match=refusal("recipes", "multiverse.two")):
        load_multiverse(*TINY)
    with pytest.raises(UsageError, match=refusal(PROTOCOLS, "multiverse.several")):
        load_study(*overrides)


def test_tuned_variants_are_judged_under_each_protocols_recipe_and_under_their_best_recipes(tmp_path: Path) -> None:
    assert call("run", tmp_path, PROTOCOLS, "tune.trials=2", "data.validation=0.5") == 0
    found = frame(tmp_path)
    assert list(dict.fromkeys(found["protocol"])) == ["quick", "quick (tuned)", "cifar", "cifar (tuned)"]
    assert len(found) == 4 * 2


def lines_until(process: subprocess.Popen[str], start: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError(f"nothing began with {start}")


def begun(folder: Path) -> subprocess.Popen[str]:
    typed: Sequence[str] = [*TINY, *OFF, PROTOCOLS, f"results_dir={folder}"]
    command = [sys.executable, "-u", "-m", "ablations.run", *typed]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("number", "protocol"), [(signal.SIGKILL, "quick"), (signal.SIGINT, "cifar")])
def test_an_interrupted_run_resumes_and_ends_like_an_uninterrupted_one(
    finished: Path, tmp_path: Path, number: signal.Signals, protocol: str, command: Command
) -> None:
    with begun(tmp_path) as process:
        place = 1 + ["quick", "cifar"].index(protocol)
        lines_until(process, worded("multiverse.protocol", number=place, protocols=2, name=protocol))
        lines_until(process, "[2/6]")
        process.send_signal(number)
        process.communicate()
    assert process.returncode == (-number if number is signal.SIGKILL else 128 + number)
    assert not (tmp_path / REPORT).exists()
    done = command("run", *TINY, *OFF, PROTOCOLS, f"results_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(frame(tmp_path), frame(finished), check_exact=True)
    assert [stored(tmp_path, study) for study in (QUICK, CIFAR)] == [WANTED, WANTED]
