from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from ablations import cli
from ablations.common.settings import Settings
from ablations.config.compose import compose_config
from ablations.config.groups import sweep_questions
from ablations.design import make_design
from ablations.design.declaration import History
from ablations.design.variants import Variant
from ablations.execution.launchers.serial import SerialLauncher
from ablations.execution.schedules.base import Schedule
from ablations.plan import PURPOSE, plan
from ablations.reporting.text.reach import Reach, unknown_sentences
from ablations.run import run
from ablations.stats import InterimAnalyses
from ablations.storage.cell_states import CellState
from ablations.storage.study import StoredCell, open_store
from ablations.training import probe
from ablations.training.events import Probe
from tests.builders.frames import frame
from tests.builders.markdown import unescaped
from tests.builders.searches import FormulaLauncher
from tests.builders.searches import Study as SearchStudy
from tests.conftest import TINY, Command
from tests.wording import refusal, worded

STUDY = "groups-digits-resnet8"
PROBE = Probe(seconds=10.0, low=8.0, high=15.0, peak_memory_mib=12.0, parameters=75_290)


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces probes by fixed costs, independent of the machine; returns the names of probed variants."""
    names: list[str] = []

    def probe(self: SerialLauncher, variants: Sequence[Variant], seconds: float) -> dict[str, Probe]:
        del self, seconds
        names.extend(variant.name for variant in variants)
        return {variant.name: PROBE for variant in variants}

    monkeypatch.setattr(SerialLauncher, "probe", probe)
    return names


def call(folder: Path, *arguments: str) -> int:
    tiny = TINY[1:] if any(argument.startswith("sweep=") for argument in arguments) else TINY  # TINY[0] sets the groups
    return cli.main("plan", PURPOSE, plan, [*tiny, "device=cpu", *arguments, f"results_dir={folder}"])


def train(folder: Path, *arguments: str) -> int:
    typed = [*TINY, "device=cpu", "tracking.enabled=false", *arguments, f"results_dir={folder}"]
    return cli.main("run", "", run, typed)


def stored(folder: Path, study: str = STUDY) -> list[StoredCell]:
    return open_store(f"sqlite:///{folder / 'optuna.db'}", study, create=False).cells()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two replicates, which tests must not change."""
    folder = tmp_path_factory.mktemp("finished")
    assert train(folder) == 0
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of `finished` that a test may change."""
    return shutil.copytree(finished, tmp_path / "copy")


def rows(text: str) -> dict[str, list[str]]:
    """Returns the rows of the plan's table, by variant."""
    cells = [[cell.strip() for cell in line.strip("|│").split("|")] for line in text.splitlines() if "|" in line]
    return {first: others for first, *others in cells[2:]}


def sentences_of(text: str) -> list[str]:
    return [line.removeprefix("- ") for line in text.splitlines() if line.startswith("- ")]


def test_a_plan_is_a_table_and_sentences_and_stores_nothing(tmp_path: Path, command: Command) -> None:
    done = command("plan", "sweep=groups", *TINY, "device=cpu", f"results_dir={tmp_path}")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{STUDY}: {sweep_questions()['groups']}"
    assert any(line.startswith("│ groups=4 │     2 │        2 │") for line in lines)
    assert lines[-1] == f"Plan:       {tmp_path / STUDY / 'plan.md'}"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["plan.md"]
    text = unescaped(tmp_path / STUDY / "plan.md")
    assert text.startswith(f"# Plan of {STUDY}\n\n{sweep_questions()['groups']}")
    assert text.endswith(f"results_dir={tmp_path}\n```\n")
    assert "```\npython -m ablations.plan sweep=groups " in text
    for sentence in sentences_of(text):
        assert sentence in lines
    table = rows(text)
    assert list(table) == ["none", "groups=1", "groups=4"]
    assert {name: (row[0], row[1], row[4], row[5]) for name, row in table.items()} == {
        "none": ("2", "2", "75,290", "a few steps"),
        "groups=1": ("2", "2", "75,626", "a few steps"),
        "groups=4": ("2", "2", "75,374", "a few steps"),
    }
    assert [row[6] for row in table.values()] == [
        "–",
        worded("capacity.group", channels="16, 32, 64"),
        worded("capacity.groups", number=4, channels="4, 8, 16"),
    ]


def test_the_sentences_about_a_study_without_stored_cells(
    tmp_path: Path, probed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path) == 0
    text = unescaped(tmp_path / STUDY / "plan.md")
    design = make_design(compose_config([*TINY, "device=cpu"]))
    precision = design.protocol["train"]["precision"]
    assert sentences_of(text) == [
        worded("plan.fits", variants=3, left=6, total=6, device="cpu", precision=precision),
        worded("plan.cost", cost="60 s", low="48 s", high="2 min", cells=6, memory=12),
        worded("plan.unknown"),
        *unknown_sentences(Reach.planned(design, frame({}), None), effect=0.0),
    ]
    assert rows(text)["none"] == ["2", "2", "10 (8 to 15)", "12.0", "75,290", "a few steps", "–"]
    assert probed == ["none", "groups=1", "groups=4"]
    assert capsys.readouterr().err == ""


def test_costs_and_detectable_effects_are_estimated_from_stored_cells(copied: Path, probed: list[str]) -> None:
    assert call(copied, "replicates=8", "plan.effect=3") == 0
    text = unescaped(copied / STUDY / "plan.md")
    assert probed == []
    times = [cell.outcome["result"]["seconds"] for cell in stored(copied) if cell.variant == "none" and cell.outcome]
    seconds = f"{sum(times) / 2:.3g} ({min(times):.3g} to {max(times):.3g})"
    assert rows(text)["none"][:3] + rows(text)["none"][5:] == ["8", "6", seconds, "2 stored cells", "–"]
    sentences = sentences_of(text)
    assert worded("plan.left", left=18, total=24) in sentences[0]
    assert sentences[2].startswith(worded("reach.detects", replicates=8, contrasts=2, effect=""))
    assert sentences[3].startswith(worded("reach.margin", margin=""))
    assert sentences[4].startswith(worded("plan.takes", effect=3))
    assert sentences[4].endswith(" of training.")


def test_the_effect_of_the_power_analysis_is_the_margin_by_default(copied: Path, probed: list[str]) -> None:
    assert call(copied, "sweep.margin=1.5") == 0
    assert sentences_of(unescaped(copied / STUDY / "plan.md"))[4].startswith(worded("plan.takes", effect=1.5))
    assert probed == []


def test_variants_without_stored_cells_are_probed(copied: Path, probed: list[str]) -> None:
    assert call(copied, "sweep.factors.attention.groups=[1,2,4]") == 0
    assert probed == ["groups=2"]
    table = rows(unescaped(copied / STUDY / "plan.md"))
    assert [row[1] for row in table.values()] == ["0", "0", "2", "0"]
    assert [row[5] for row in table.values()] == ["2 stored cells"] * 2 + ["a few steps", "2 stored cells"]


def test_the_run_reuses_the_replicates_of_the_pilot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("tracking.enabled=false", "train.epochs=1")
    assert call(tmp_path, *options, "replicates=3", "plan.pilot=2") == 0
    before = stored(tmp_path)
    assert sorted((cell.variant, cell.replicate) for cell in before) == sorted(
        (name, replicate) for name in ("none", "groups=1", "groups=4") for replicate in range(2)
    )
    assert {cell.state for cell in before} == {CellState.FINISHED}
    text = unescaped(tmp_path / STUDY / "plan.md")
    assert worded("plan.left", left=3, total=9) in text
    assert [row[5] for row in rows(text).values()] == ["2 stored cells"] * 3
    # A second pilot trains nothing.
    capsys.readouterr()
    assert call(tmp_path, *options, "replicates=3", "plan.pilot=2") == 0
    assert worded("run.finished", cells=6) in capsys.readouterr().out

    assert train(tmp_path, *options, "replicates=3") == 0
    printed = capsys.readouterr().out
    assert worded("run.to_train", cells=9, left=3) in printed
    assert [cell for cell in stored(tmp_path) if cell.replicate < 2] == before
    assert {cell.replicate for cell in stored(tmp_path)} == {0, 1, 2}


def history(folder: Path) -> History:
    store = open_store(f"sqlite:///{folder / 'optuna.db'}", STUDY, create=False)
    declared = History.stored(store.attributes["declared"])
    assert declared is not None
    return declared


def test_a_pilot_declares_its_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("tracking.enabled=false", "train.epochs=1")
    assert call(tmp_path, *options, "replicates=3", "baseline_replicates=6", "plan.pilot=2") == 0
    assert len(stored(tmp_path)) == 6
    assert worded("plan.left", left=6, total=12) in unescaped(tmp_path / STUDY / "plan.md")
    first = history(tmp_path).first
    assert (first.replicates, first.baseline_replicates) == (3, 6)
    assert train(tmp_path, *options, "replicates=3", "baseline_replicates=6") == 0
    assert (history(tmp_path).first, history(tmp_path).changes) == (first, ())
    assert sorted(cell.replicate for cell in stored(tmp_path) if cell.variant == "none") == [*range(6)]
    assert len(stored(tmp_path)) == 12
    # A plan reports later deviations from the declaration.
    capsys.readouterr()
    assert call(tmp_path, *options, "replicates=5") == 0
    assert worded("plan.otherwise", what="replicates from 3 (baselines 6) to 5") in capsys.readouterr().out
    assert call(tmp_path, *options, "replicates=2") == 0
    assert worded("plan.otherwise", what="") not in capsys.readouterr().out


def test_with_replicates_auto_the_pilot_trains_the_first_replicates(tmp_path: Path) -> None:
    options = ("replicates=auto", "replicates.max=12", "train.epochs=1", "data.resolution=32", "tracking.enabled=false")
    assert call(tmp_path, *options, "plan.pilot=2") == 0
    text = unescaped(tmp_path / STUDY / "plan.md")
    assert len(stored(tmp_path)) == 6
    interims = InterimAnalyses.planned(12)
    assert interims is not None
    first = interims.sizes[0]
    assert [row[:2] for row in rows(text).values()] == [[str(first), str(first - 2)]] * 3
    sentences = sentences_of(text)
    assert worded("plan.left", left=3 * (first - 2), total=3 * first) in sentences[0]
    assert sentences[1].endswith(f" for {3 * (first - 2)} cells.")  # the memory is unknown with measure=off
    assert [row[3] for row in rows(text).values()] == ["–"] * 3
    assert sentences[2] == worded("plan.looks", sizes=", ".join(map(str, interims.sizes)), most=36)
    # After so few steps all networks are at chance level, with the same accuracy.
    assert sentences[3] == worded("plan.alike")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan.pilot=3"], "error: " + refusal("plan.pilot=3", "plan.pilot", replicates=2)),
        (["plan.pilot=-1"], "error: " + refusal("plan.pilot=-1", "options.below", least=0)),
        (["plan.pilot=101"], "error: " + refusal("plan.pilot=101", "options.over", most=100)),
        (["plan.effect=-1"], "error: " + refusal("plan.effect=-1.0", "options.below", least=0)),
        (["plan.effect=nan"], "error: " + refusal("plan.effect=nan", "options.below", least=0)),
        (["plan.efect=1"], "error: " + refusal("plan.efect", "options.no_such", what="option", near="plan.effect")),
        (["bench.images=3"], "error: " + refusal("bench.images=3", "options.other_verb", owner="bench", verb="plan")),
        (["sweep=search", "plan.pilot=2", "measure=on"],
         "error: " + refusal("plan.pilot=2", "plan.search")),
        (["replicates=auto", "replicates.max=10", "plan.pilot=11"],
         "error: " + refusal("plan.pilot=11", "plan.pilot", replicates=10)),
        # The error is raised before the pilot is trained.
        (["replicates=auto", "replicates.max=3", "plan.pilot=2"],
         "error: " + refusal("replicates.max=3", "looks.too_few", contrasts=2)),
        (["study=../x"], "error: " + refusal("study=../x", "paths.no_name")),
        (["storage=sqlite:////nowhere/x.db", "study=x/y"], "error: " + refusal("study=x/y", "paths.no_name")),
    ],
)  # fmt: skip
def test_invalid_input_is_one_message_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, probed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path, *arguments) == 2
    errors = capsys.readouterr().err
    assert re.match(message, errors)
    assert len(errors.splitlines()) == 1
    assert probed == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, probed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert call(tmp_path / "file") == 2
    assert "results_dir=" in capsys.readouterr().err
    assert probed


@pytest.mark.parametrize("pilot", ["plan.pilot=0", "plan.pilot=2"])
def test_a_study_of_another_protocol_is_refused(pilot: str, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stored(finished)
    assert call(finished, "train.epochs=3", pilot) == 2
    errors = capsys.readouterr().err
    assert re.match("error: " + refusal(f"study={STUDY}", "study.other_protocol", then="study="), errors)
    assert errors.endswith(f"  {worded('study.difference', option='train.epochs', stored=2, asked=3)}\n")
    assert stored(finished) == before
    assert not (finished / STUDY / "plan.md").exists()


def test_a_study_without_cells_is_planned_as_a_new_one(tmp_path: Path, probed: list[str]) -> None:
    # As left by a run without its data set.
    open_store(f"sqlite:///{tmp_path / 'optuna.db'}", STUDY, create=True)
    assert call(tmp_path) == 0
    assert worded("plan.left", left=6, total=6) in unescaped(tmp_path / STUDY / "plan.md")
    assert probed


def test_stored_interim_analyses_are_part_of_the_plan(copied: Path, probed: list[str]) -> None:
    store = open_store(f"sqlite:///{copied / 'optuna.db'}", STUDY, create=False)
    store.remember("looks", [9, 14])
    assert call(copied, "replicates=auto", "replicates.max=14") == 0
    assert "Interim analyses are at 9, 14 replicates; " in unescaped(copied / STUDY / "plan.md")
    assert call(copied, "replicates=auto", "replicates.max=15") == 2
    # The last interim analysis has only a part of the error rate, so it detects less than the same n without others.
    detected = []
    for options in (["replicates=auto", "replicates.max=14"], ["replicates=14"]):
        assert call(copied, *options) == 0
        start = worded("reach.detects", replicates=14, contrasts=2, effect="")
        (sentence,) = (text for text in sentences_of(unescaped(copied / STUDY / "plan.md")) if text.startswith(start))
        detected.append(float(sentence.removeprefix(start).split()[0]))
    assert detected[0] > detected[1]
    assert probed == []


def test_a_sweep_whose_baseline_is_a_level_is_planned(tmp_path: Path, probed: list[str]) -> None:
    assert call(tmp_path, "sweep=backbones", "sweep.factors={model: [resnet8, resnet20], attention: [none, sa]}") == 0
    text = unescaped(next(tmp_path.glob("backbones*/plan.md")))
    assert list(rows(text)) == probed == ["resnet8, none", "resnet8, sa", "resnet20, none", "resnet20, sa"]
    assert " with 2 replicates and 2 contrasts at 80 % power: " in text


SPACE = "sweep.factors={attention: {gate: [sigmoid, tanh1], branches: [both, channel]}}"


@pytest.mark.parametrize(("trials", "picks"), [(2, 2), (20, 4)])
def test_a_search_is_planned_with_the_cells_of_both_phases(
    trials: int, picks: int, tmp_path: Path, probed: list[str]
) -> None:
    assert call(tmp_path, "sweep=search", SPACE, "sweep.objectives=[top1]", f"sweep.trials={trials}") == 0
    text = unescaped(next(tmp_path.glob("search*/plan.md")))
    best = min(3, picks)
    selection, results = 1 + picks, 2 * (1 + best)
    assert probed == ["none"]
    assert worded("plan.left", left=selection + results, total=selection + results) in text
    assert f" for {selection + results} cells, " in text
    lines = text.splitlines()
    values = {"selection": selection, "share": 20, "results": results, "replicates": 2, "picks": best}
    assert f"- {worded('plan.phases', **values)}" in lines
    assert f"- {worded('plan.search_detects', picks=3, replicates=2)}" in lines
    assert rows(text)["none"][:2] == ["3", "3"]


@pytest.mark.usefixtures("probed")
def test_the_plan_of_a_finished_search_has_nothing_to_train(tmp_path: Path) -> None:
    study = SearchStudy(tmp_path, "sweep.trials=9", "study=mine", f"results_dir={tmp_path}", prunes=True)
    study.drive(FormulaLauncher(study.config))
    assert any(cell.state == CellState.PRUNED for cell in study.store.cells())
    assert plan(study.config, "") == 0
    text = unescaped(tmp_path / "mine" / "plan.md")
    assert worded("plan.left", left=0, total=10 + 3 * 2) in text
    assert {row[1] for row in rows(text).values()} == {"0"}


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, MemoryError])
def test_a_variant_that_cannot_be_probed_does_not_stop_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def fail(network: Settings, *arguments: object) -> Probe:
        del arguments
        if network["attention"].get("groups") == 4:
            raise kind("out of memory\n and a page of details")
        return PROBE

    monkeypatch.setattr(probe, "probe", fail)
    assert call(tmp_path) == 0
    text = unescaped(tmp_path / STUDY / "plan.md")
    capacity = worded("capacity.groups", number=4, channels="4, 8, 16")
    assert rows(text)["groups=4"][2:] == ["–", "–", "0", "unknown: out of memory", capacity]
    assert "- " + worded("plan.cost_unknown", variant="groups=4") in text


def test_a_plan_does_not_change_stored_results(copied: Path, probed: list[str]) -> None:
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    assert call(copied, "replicates=5") == 0
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in copied.rglob("*") if path.is_file()} - {path.name for path in before} == {"plan.md"}
    assert probed == []
    design = make_design(compose_config([*TINY, "device=cpu"]))
    store = open_store(f"sqlite:///{copied / 'optuna.db'}", STUDY, create=False)
    assert Schedule(design, store).missing() == []
