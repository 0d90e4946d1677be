"""Every built-in sweep at minimal size: training, tables, figures, MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from ablations import cli
from ablations.analyze import PURPOSE, analyze
from ablations.config.compose import compose_config
from ablations.config.groups import sweep_questions
from ablations.design import make_design
from ablations.run import run
from tests.conftest import MEASURED, TINY, Command

SWEEPS = sweep_questions()
SMALL = [*TINY[1:], "train.epochs=1", "replicates=1"]
# With 24 training images, a share of 0.2 would leave classes without validation images.
SEARCH = ["sweep.trials=6", "sweep.objectives=[top1]", "sweep.confirm=2", "data.validation=0.5"]
DRAWN = ("factorial", "search")  # these two have every kind of figure; drawing takes most of the time
SECTIONS = {
    "factorial": ["Main effects and interactions"],
    "backbones": ["Main effects and interactions"],
    "search": ["Selection (validation)", "Importance of factors"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


@pytest.mark.parametrize("sweep", sorted(SWEEPS))
def test_a_sweep_can_be_run_and_analyzed(
    sweep: str, folder: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if sweep in DRAWN:
        request.getfixturevalue("_drawn")
    is_observed = sweep in ("backbones", "controls", "search")  # figures of trained networks take seconds
    arguments = [f"sweep={sweep}", *SMALL, f"results_dir={folder}", *(SEARCH if sweep == "search" else [])]
    arguments += [] if is_observed else ["weights=off"]
    of_costs = {"pareto", "overhead"} if sweep in ("shuffle", "search") else set()
    arguments += MEASURED if of_costs else []
    assert cli.main("run", "", run, arguments) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    config = compose_config(arguments)
    design = make_design(config)
    study = folder / design.study
    report = (study / "report.md").read_text()
    assert SWEEPS[sweep] in printed
    assert SWEEPS[sweep] in report
    variants = [variant.name for variant in design.variants]
    for variant in variants:
        assert f"\n| {variant} | 1 | " in report
    count = len(variants) + (config.sweep.trials + len(variants) + config.sweep.confirm if design.is_search else 0)
    assert f"cells: {count};" in printed
    for section in SECTIONS.get(sweep, ()):
        assert f"\n{section}\n" in printed
        assert f"\n## {section}\n" in report
    figures = {path.stem for path in (study / "figures").glob("*.png")}
    crossed = {"effects", "interactions"}
    extra = {"search": {"tradeoffs", "edf"}, "factorial": crossed, "backbones": crossed}
    of_networks = {"gates", "subfeatures", "cams"} if is_observed else set()
    always = {"variants", "time", "complexity", "learning_curves", "classes", "confusion", "calibration", "forest"}
    assert figures == always | of_networks | of_costs | extra.get(sweep, set())
    assert ("\n## Costs\n" in report) == bool(of_costs)
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(design.study)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * (count + 1)

    table = printed[printed.index("┏") : printed.index("Report:")]
    assert cli.main("analyze", PURPOSE, analyze, [*arguments, "figures=[all,-gates,-subfeatures,-cams]"]) == 0
    assert table in capsys.readouterr().out


def test_the_error_for_an_unknown_sweep_lists_all_sweeps_with_questions(command: Command) -> None:
    done = command("run", "sweep=everything")
    assert done.returncode == 2
    for sweep, question in SWEEPS.items():
        assert question
        assert f"\n  {sweep:12} {question}" in done.stderr
