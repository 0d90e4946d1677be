from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imread

from ablations import analyze, cli
from ablations.analysis.load import load_configured
from ablations.analysis.results import collect
from ablations.analysis.study import StudyAnalysis
from ablations.common.parts import Parts
from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.design import Design, make_design
from ablations.reporting.figures import FIGURES
from ablations.reporting.figures.registry import draw_figures
from ablations.storage.files import PredictionFiles, Weights
from tests.builders.analyses import search_analysis
from tests.builders.attributes import ATTRIBUTES
from tests.builders.cells import stored
from tests.builders.costs import usual_attributes
from tests.builders.driven import DrivenStudy
from tests.builders.kept import RecordingLauncher
from tests.conftest import TINY
from tests.wording import refusal, worded

OF_CELLS = [
    "variants",
    "pareto",
    "time",
    "complexity",
    "overhead",
    "learning_curves",
]  # of crossed factors with costs
OF_PREDICTIONS = ["classes", "confusion", "calibration"]
CONFIRMED = {"groups=2, gate=tanh1", "groups=4, gate=sigmoid", "groups=4, gate=tanh1"}  # of `search_analysis`
OF_WEIGHTS = ["gates", "subfeatures", "cams"]
OF_TUNING = ["comparisons", "tuning"]
TYPED = ("sweep.factors.attention.groups=[1,4]", "train.epochs=1", "train.batch_size=8", "data.train_images=24",
         "data.test_images=20", "device=cpu", "replicates=1")  # fmt: skip


def studied(
    folder: Path, *overrides: str, finished: int = 1000, made: Design | None = None, costs: bool = True
) -> StudyAnalysis:
    """A study without trained networks."""
    config = compose_config(["device=cpu", "replicates=2", *overrides])
    made = made or make_design(config)
    attributes = ATTRIBUTES | (usual_attributes(made) if costs else {})
    return StudyAnalysis(config, made, collect(made, stored(made, finished)), attributes, folder)


def drawn(analysis: StudyAnalysis, names: Iterable[str] = FIGURES) -> tuple[list[str], dict[str, str]]:
    """Draws figures, checks their files, and returns the names and the reasons of those left out."""
    gallery = draw_figures(analysis, names)
    for figure in gallery.drawn:
        folder = analysis.folder / "figures"
        assert sorted(figure.files) == [folder / f"{figure.name}.{suffix}" for suffix in ("csv", "pdf", "png")]
        assert figure.png == folder / f"{figure.name}.png"
        assert figure.title == FIGURES[figure.name]
        assert imread(figure.png).std() > 0
        assert (folder / f"{figure.name}.pdf").read_bytes().startswith(b"%PDF-")
        assert len(pd.read_csv(folder / f"{figure.name}.csv")) > 0
    assert all(len(reason.splitlines()) == 1 for reason in gallery.left_out.values())
    return [figure.name for figure in gallery.drawn], dict(gallery.left_out)


def test_a_sweep_of_one_factor_has_no_effects_and_no_tradeoffs(tmp_path: Path) -> None:
    names, left_out = drawn(studied(tmp_path, "sweep=groups", "sweep.factors.attention.groups=[2,4]"))
    assert names == ["forest", *OF_CELLS]
    assert list(left_out) == ["effects", "interactions", "tradeoffs", "edf", *OF_TUNING, *OF_PREDICTIONS, *OF_WEIGHTS]
    assert left_out["effects"] == left_out["interactions"] == worded("figures.not_crossed")
    assert left_out["edf"] == worded("figures.no_trials")
    assert left_out["tradeoffs"] == worded("figures.no_search")
    no_weights = worded("figures.no_weights", study="groups-digits-resnet8", folder=tmp_path / "weights")
    for name in OF_WEIGHTS:
        assert left_out[name].startswith(no_weights)
    for name in OF_PREDICTIONS:
        assert worded("predictions.none", folder=tmp_path / "predictions") in left_out[name]


def test_a_sweep_of_several_baselines_shows_variants_beside_their_baselines(tmp_path: Path) -> None:
    analysis = studied(tmp_path, "sweep=backbones", "sweep.factors.model=[resnet8,resnet20]")
    names, _ = drawn(analysis)
    assert names == ["forest", "variants", "effects", "interactions", *OF_CELLS[1:]]
    rows = pd.read_csv(tmp_path / "figures" / "variants.csv", keep_default_na=False)
    assert set(rows["series"]) == {"none", "sa"}
    assert set(pd.read_csv(tmp_path / "figures" / "overhead.csv")["place"]) == {"resnet8", "resnet20"}


def test_crossed_factors_have_effects_when_all_combinations_share_a_replicate(tmp_path: Path) -> None:
    crossed = ["sweep=factorial", "sweep.factors={attention: {branches: [both, spatial], shuffle: [true, false]}}"]
    names, left_out = drawn(studied(tmp_path, *crossed))
    assert names == ["forest", "variants", "effects", "interactions", *OF_CELLS[1:]]
    for figure in draw_figures(studied(tmp_path, *crossed), ["effects", "interactions"]).drawn:
        assert worded("figures.every_combination", n=2) in figure.caption
    assert "effects" not in left_out
    _, left_out = drawn(studied(tmp_path, *crossed, finished=4), ["effects"])
    assert left_out["effects"] == worded("figures.not_crossed")


def test_a_search_has_figures_of_its_results_and_of_its_selection(tmp_path: Path) -> None:
    analysis = search_analysis(tmp_path, given_up=1)
    names, _ = drawn(analysis)
    assert names == ["forest", "variants", "tradeoffs", "edf", *OF_CELLS[1:]]
    assert set(pd.read_csv(tmp_path / "figures" / "forest.csv")["variant"]) == CONFIRMED
    tried = pd.read_csv(tmp_path / "figures" / "tradeoffs.csv")
    assert set(tried.loc[tried["rank"] > 0, "variant"]) == CONFIRMED
    assert tried["picked"].sum() == 5
    (figure,) = draw_figures(analysis, ["tradeoffs"]).drawn
    assert worded("figures.given_up", variants="1 pruned variant") in figure.caption
    assert worded("figures.on_validation") in figure.caption


def test_a_search_without_confirmed_variants_has_figures_of_its_selection(tmp_path: Path) -> None:
    names, left_out = drawn(search_analysis(tmp_path, is_confirmed=False))
    assert names == ["tradeoffs", "edf"]
    assert left_out["forest"] == "no cell is finished"
    (figure,) = draw_figures(search_analysis(tmp_path, is_confirmed=False), ["tradeoffs"]).drawn
    assert worded("figures.permuted", permutations=59) in figure.caption
    assert figure.caption.endswith("; Machine & Co.")


def test_without_costs_there_is_no_figure_of_costs(tmp_path: Path) -> None:
    names, left_out = drawn(studied(tmp_path, "sweep.factors.attention.groups=[2,4]", costs=False))
    assert names == ["forest", "variants", "time", "complexity", "learning_curves"]
    assert left_out["pareto"] == worded("figures.no_costs")
    assert left_out["overhead"] == worded("figures.no_times")


def test_one_replicate_has_no_intervals_and_captions_mention_none(tmp_path: Path) -> None:
    analysis = studied(tmp_path, "replicates=1", "sweep.factors.attention.groups=[2,4]")
    captions = {figure.name: figure.caption for figure in draw_figures(analysis).drawn}
    assert list(captions) == ["forest", *OF_CELLS]
    for caption in captions.values():
        assert "n = 1 replicate per variant." in caption
    assert "95 % CI" not in captions["forest"] + captions["variants"]
    assert "means over replicates" not in captions["learning_curves"]
    assert pd.read_csv(tmp_path / "figures" / "forest.csv")["low"].isna().all()


def test_a_variant_without_a_finished_cell_is_in_no_figure_but_in_every_caption(tmp_path: Path) -> None:
    analysis = studied(tmp_path, "sweep.factors.attention.groups=[2,4]", finished=2)  # none and groups=2, once
    gallery = draw_figures(analysis)
    assert [figure.name for figure in gallery.drawn] == ["forest", *OF_CELLS]
    for figure in gallery.drawn:
        assert figure.caption.endswith(
            worded("scope.missing", pending=4, total="6 cells", named="1 of none, 1 of groups=2, 2 of groups=4")
        )
        rows = pd.read_csv(tmp_path / "figures" / f"{figure.name}.csv", keep_default_na=False)
        shown = set(rows["name" if figure.name == "overhead" else "variant"])
        assert shown - {"none"} == {"groups=2"}, figure.name


def test_without_a_finished_cell_there_is_no_figure(tmp_path: Path) -> None:
    names, left_out = drawn(studied(tmp_path, finished=0))
    assert names == []
    assert left_out == dict.fromkeys(FIGURES, worded("figures.none_finished"))
    assert not (tmp_path / "figures").exists()


def test_without_a_finished_baseline_there_is_no_forest_plot(tmp_path: Path) -> None:
    made = make_design(compose_config(["device=cpu", "replicates=2", "sweep.factors.attention.groups=[2,4]"]))
    known = [cell for cell in stored(made, 6) if cell.variant != "none"]
    analysis = replace(studied(tmp_path, "sweep.factors.attention.groups=[2,4]"), results=collect(made, known))
    _, left_out = drawn(analysis, ["forest"])
    assert left_out == {"forest": worded("figures.no_pair")}


def test_a_caption_has_question_n_protocol_machine_and_missing_cells(tmp_path: Path) -> None:
    analysis = studied(tmp_path, "sweep.factors.attention.groups=[2,4]", "train.epochs=9", finished=4)
    forest, variants, curves = draw_figures(analysis, ["forest", "variants", "learning_curves"]).drawn
    precision = analysis.design.protocol["train"]["precision"]
    protocol = f"digits (20x20 pixels), {worded('scope.one_scenes')}, resnet8, 9 epochs, {precision}, last epoch; one."
    missing = worded("scope.missing", pending=2, total="6 cells", named="1 of groups=2, 1 of groups=4")
    tail = f"n = 1 to 2 replicates per variant. {protocol} {missing}"
    for figure in (forest, variants, curves):
        assert figure.caption.endswith(tail), figure.name
    assert variants.caption.startswith(f"{analysis.design.question} Dots: replicates; top-1: mean and 95 % CI")
    assert forest.caption.startswith(analysis.design.question)
    assert not curves.caption.startswith(analysis.design.question)


def test_captions_name_the_machines_that_trained(tmp_path: Path) -> None:
    made = make_design(compose_config(["device=cpu", "replicates=2", "sweep.factors.attention.groups=[2,4]"]))
    known = [*stored(made, 6)[:3], *stored(made, 6, machine="two")[3:]]
    analysis = replace(studied(tmp_path, "sweep.factors.attention.groups=[2,4]"), results=collect(made, known))
    (figure,) = draw_figures(analysis, ["variants"]).drawn
    assert figure.caption.endswith("last epoch; one and two.")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a real study with one replicate and its weights."""
    folder = tmp_path_factory.mktemp("kept")
    study = DrivenStudy(folder, *TINY, *TYPED, f"results_dir={folder}")
    kept = folder / study.design.study
    predictions = PredictionFiles(kept / "predictions")
    assert study.drive(RecordingLauncher(study), weights=Weights(kept / "weights"), predictions=predictions).failed == 0
    return folder


@pytest.fixture
def results(kept: Path, tmp_path: Path) -> Path:
    """A copy of the kept results."""
    return Path(shutil.copytree(kept, tmp_path / "results"))


def config_of(results: Path, *overrides: str) -> Config:
    return compose_config([*TYPED, f"results_dir={results}", *overrides])


def test_a_study_with_weights_has_the_figures_of_trained_networks(results: Path) -> None:
    analysis = load_configured(config_of(results))
    names, left_out = drawn(analysis, OF_WEIGHTS)
    assert (names, left_out) == (OF_WEIGHTS, {})
    gates, subfeatures, cams = draw_figures(analysis, OF_WEIGHTS).drawn
    assert worded("figures.one_network_images", replicate=0, images=20) in gates.caption
    assert worded("figures.one_network_images", replicate=0, images=20) in subfeatures.caption
    assert worded("figures.one_network", replicate=0) in cams.caption
    assert "Grad-CAM (Selvaraju et al. 2017)" in cams.caption
    for name, variants in (
        ("gates", {"groups=1", "groups=4"}),
        ("subfeatures", {"none", "groups=1", "groups=4"}),
        ("cams", {"none", "groups=1", "groups=4"}),
    ):
        rows = pd.read_csv(analysis.folder / "figures" / f"{name}.csv", keep_default_na=False)
        assert set(rows["variant"]) == variants, name


def test_a_study_with_predictions_has_the_figures_of_predictions(results: Path) -> None:
    analysis = load_configured(config_of(results))
    names, left_out = drawn(analysis, OF_PREDICTIONS)
    assert (names, left_out) == (OF_PREDICTIONS, {})
    for figure in draw_figures(analysis, OF_PREDICTIONS).drawn:
        assert "n = 1 replicate per variant, 20 test images each" in figure.caption


def test_the_caption_of_curves_has_the_number_of_test_images_before_the_last_epoch(tmp_path: Path) -> None:
    made = make_design(compose_config(["device=cpu", "replicates=2", "sweep.factors.attention.groups=[2,4]"]))
    known = stored(made, 6)
    for cell in known:
        assert cell.outcome is not None
        for epoch, images in zip(cell.outcome["result"]["epochs"], (1000, 10_000), strict=True):
            epoch["test_images"] = images
    analysis = replace(studied(tmp_path, "sweep.factors.attention.groups=[2,4]"), results=collect(made, known))
    (curves,) = draw_figures(analysis, ["learning_curves"]).drawn
    assert worded("predictions.between", few="1,000", all="10,000") in curves.caption
    (curves,) = draw_figures(studied(tmp_path, "sweep.factors.attention.groups=[2,4]"), ["learning_curves"]).drawn
    assert "test images" not in curves.caption


def test_figures_of_trained_networks_show_the_variants_with_weights(results: Path) -> None:
    analysis = load_configured(config_of(results))
    weights = Weights(analysis.folder / "weights")
    weights.path(analysis.design.cell(analysis.design.variants[1], 0)).unlink()
    assert drawn(analysis, OF_WEIGHTS)[0] == OF_WEIGHTS
    rows = pd.read_csv(analysis.folder / "figures" / "gates.csv")
    assert set(rows["variant"]) == {"groups=4"}
    weights.path(analysis.design.cell(analysis.design.variants[2], 0)).unlink()
    _, left_out = drawn(load_configured(config_of(results)), ["gates", "subfeatures"])
    assert left_out == {
        "gates": worded("figures.no_gates"),
        "subfeatures": worded("figures.no_subfeatures"),
    }


def test_images_other_than_those_of_training_are_not_used(results: Path) -> None:
    analysis = load_configured(config_of(results))
    known = analysis.attributes["data_fingerprint"]
    changed = replace(analysis, attributes={**analysis.attributes, "data_fingerprint": "f00d"})
    names, left_out = drawn(changed, ["variants", *OF_WEIGHTS])
    assert names == ["variants"]
    for name in OF_WEIGHTS:
        assert left_out[name] == worded("figures.other_images", data="digits", known=known, trained_on="f00d")


def test_missing_images_are_not_downloaded_for_figures(results: Path) -> None:
    analysis = load_configured(config_of(results))
    data = compose_config(["data=cifar10", f"data.root={results / 'nowhere'}"]).data
    _, left_out = drawn(replace(analysis, config=replace(analysis.config, data=data)), OF_WEIGHTS)
    pattern = refusal(f"data.root={results / 'nowhere'}", "images.not_fetched", folder="cifar-10-batches-py")
    assert list(left_out) == OF_WEIGHTS
    assert all(re.fullmatch(pattern, reason) for reason in left_out.values())
    assert not (results / "nowhere").exists()


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def test_damaged_weights_remove_their_variant_from_the_figures_that_need_them(results: Path) -> None:
    analysis, parts = load_configured(config_of(results)), Parts()
    path = Weights(analysis.folder / "weights").path(analysis.design.cell(analysis.design.variants[1], 0))
    damage(path)
    gallery = draw_figures(analysis, OF_WEIGHTS, parts)
    assert [figure.name for figure in gallery.drawn] == OF_WEIGHTS
    ((name, reason),) = [(missing.name, missing.reason) for missing in parts.missing]
    assert name == "weights of groups=1"
    assert reason.startswith(f"weights={path}: cannot be read (")
    for figure in gallery.drawn:
        assert worded("figures.unread_weights", named=name) in figure.caption
        rows = pd.read_csv(analysis.folder / "figures" / f"{figure.name}.csv", keep_default_na=False)
        assert "groups=1" not in set(rows["variant"])


def test_without_readable_weights_the_figures_that_need_them_are_not_made(results: Path) -> None:
    analysis, parts = load_configured(config_of(results)), Parts()
    for path in (analysis.folder / "weights").iterdir():
        damage(path)
    names = [figure.name for figure in draw_figures(analysis, ["variants", *OF_WEIGHTS], parts).drawn]
    assert names == ["variants"]
    assert [missing.name for missing in parts.missing] == [f"figure {name}" for name in OF_WEIGHTS]


def test_damaged_predictions_remove_their_cell_from_the_figures_that_need_them(results: Path) -> None:
    analysis, parts = load_configured(config_of(results)), Parts()
    damage(PredictionFiles(analysis.folder / "predictions").path(analysis.design.cell(analysis.design.variants[1], 0)))
    gallery = draw_figures(analysis, OF_PREDICTIONS, parts)
    assert [figure.name for figure in gallery.drawn] == OF_PREDICTIONS
    assert [missing.name for missing in parts.missing] == ["predictions of groups=1 r0"]


def call(results: Path, *arguments: str) -> int:
    return cli.main("analyze", analyze.PURPOSE, analyze.analyze, [*TYPED, f"results_dir={results}", *arguments])


def files(results: Path) -> set[str]:
    folder = results / "groups-digits-resnet8"
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix not in (".safetensors", ".npz")
    } - {
        "weights",
        "predictions",
    }


def test_only_named_figures_are_drawn(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = results / "groups-digits-resnet8" / "report.md"
    report.write_text("as it was")
    assert call(results, "figures=[learning_curves,variants]") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert report.read_text() == "as it was"
    drawn_files = {
        f"figures/{name}.{suffix}" for name in ("variants", "learning_curves") for suffix in ("png", "pdf", "csv")
    }
    assert files(results) == {"report.md", "figures", *drawn_files}
    for path in drawn_files:
        assert str(results / "groups-digits-resnet8" / path) in printed.out
    assert call(results, "figures=gates") == 0
    assert "figures/gates.png" in files(results)


def test_all_figures_are_drawn_with_the_report(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(results) == 0
    assert capsys.readouterr().err == ""
    names = ["forest", "variants", "time", "complexity", "learning_curves", *OF_PREDICTIONS, *OF_WEIGHTS]
    assert {path for path in files(results) if path.endswith(".png")} == {f"figures/{name}.png" for name in names}
    text = (results / "groups-digits-resnet8" / "report.md").read_text()
    places = [text.index(f"![{FIGURES[name]}](figures/{name}.png)") for name in names]
    assert places == sorted(places)
    assert text.index("Figures that cannot be drawn:") > places[-1]
    for name in set(FIGURES) - set(names):
        assert f"\n- {name}: " in text


def test_figures_can_be_excluded_from_a_report(results: Path) -> None:
    assert call(results, "figures=[all,-cams,-gates,-subfeatures,-forest,-confusion,-calibration,-classes]") == 0
    names = ["variants", "time", "complexity", "learning_curves"]
    assert {path for path in files(results) if path.endswith(".png")} == {f"figures/{name}.png" for name in names}
    assert "- forest: " not in (results / "groups-digits-resnet8" / "report.md").read_text()


def test_an_unknown_figure_is_a_single_message_with_the_nearest_name(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(results)
    assert call(results, "figures=[variants,parteo]") == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("error: figures=parteo: ")
    assert "did you mean pareto" in printed.err
    assert files(results) == before


@pytest.mark.parametrize("asked", ["[effects,learning_curves]", "[learning_curves,effects]"])
def test_a_figure_that_the_study_does_not_have_is_a_single_message_after_the_others_are_drawn(
    results: Path, capsys: pytest.CaptureFixture[str], asked: str
) -> None:
    assert call(results, f"figures={asked}") == 2
    printed = capsys.readouterr()
    reason = worded("figures.not_crossed")
    assert re.fullmatch("error: " + refusal("figures=effects", "figures.undrawn", reason=reason) + "\n", printed.err)
    assert "figures/learning_curves.png" in printed.out
    assert "figures/learning_curves.png" in files(results)


def test_without_write_permission_for_figures_only_the_figures_are_missing(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = results / "groups-digits-resnet8"
    (study / "figures").write_text("")
    assert call(results, "figures=variants") == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    reason = f"FileExistsError: [Errno 17] File exists: '{study / 'figures'}'"
    assert worded("not_made.part", name="figure variants", reason=reason) in printed.out
