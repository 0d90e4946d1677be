from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from ablations.analysis.load import analyze_stored
from ablations.analysis.results import collect
from ablations.analysis.study import StudyAnalysis
from ablations.common.errors import UsageError
from ablations.config import TrainConfig
from ablations.config.compose import compose_config
from ablations.data.device import DeviceImages, on_device
from ablations.design import Cell, make_design
from ablations.storage.cell_states import CellState
from ablations.storage.files import Checkpoints, PredictionFiles, Weights
from ablations.training.evaluation import evaluate
from ablations.training.job import pack_weights
from ablations.training.learner import build_network
from ablations.training.weights import KeptNetwork
from tests.builders.driven import DrivenStudy
from tests.builders.kept import INPUTS, RecordingLauncher, drive
from tests.builders.launchers import Launcher
from tests.conftest import TINY
from tests.disks import NEEDS_FULL_DISK, fill_disk_for, leave_partial
from tests.wording import worded

CELLS = list(make_design(compose_config(["device=cpu"])).cells())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def cells(study: DrivenStudy) -> dict[str, Cell]:
    return {cell.name: cell for cell in study.design.cells()}


def images_of(launcher: Launcher) -> DeviceImages:
    return on_device(launcher.images, launcher.data, "cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[DrivenStudy, Weights, RecordingLauncher]:
    """A study with one replicate."""
    folder = tmp_path_factory.mktemp("trained")
    study = DrivenStudy(folder, *TINY, "replicates=1")
    weights = Weights(folder / "study" / "weights")
    launcher = RecordingLauncher(study)
    assert drive(study, weights, launcher)[0] == 0
    return study, weights, launcher


def of(study: DrivenStudy, weights: Weights) -> StudyAnalysis:
    return analyze_stored(study.config, study.design, study.store, weights.folder.parent)


def test_kept_weights_give_the_logits_of_the_trained_network_bit_for_bit(
    trained: tuple[DrivenStudy, Weights, RecordingLauncher],
) -> None:
    study, weights, launcher = trained
    pixels = torch.cat([part for part, _ in images_of(launcher).test_batches(8)])
    for name, cell in cells(study).items():
        model, loaded = launcher.networks[name].eval(), weights.load(cell)
        assert not loaded.training
        learnt = model.state_dict()
        assert list(loaded.state_dict()) == list(learnt)
        assert all(torch.equal(value, learnt[key]) for key, value in loaded.state_dict().items())
        # Computed by the same operations, because fused kernels differ in the last digits.
        same = build_network(cell.variant.network, 10, 1, fused="off").eval()
        same.load_state_dict(learnt)
        with torch.no_grad():
            assert torch.equal(loaded(pixels), same(pixels))
            torch.testing.assert_close(loaded(pixels), model(pixels.contiguous()), rtol=1e-3, atol=1e-3)


def test_kept_weights_have_the_stored_top1(trained: tuple[DrivenStudy, Weights, RecordingLauncher]) -> None:
    study, weights, launcher = trained
    recipe = TrainConfig(**study.design.protocol["train"])
    for name, cell in cells(study).items():
        tested = evaluate(weights.load(cell), recipe, images_of(launcher))
        assert tested.predictions.top1 == launcher.results[name]["top1"]
        assert tested.loss == pytest.approx(launcher.results[name]["test_loss"], rel=1e-3)  # bfloat16 is possible


def test_a_weights_file_identifies_its_network_and_is_read_without_running_code(
    trained: tuple[DrivenStudy, Weights, RecordingLauncher],
) -> None:
    study, weights, _ = trained
    assert names(weights.folder) == {f"{cell.key}.safetensors" for cell in study.design.cells()}
    for cell in study.design.cells():
        with safe_open(weights.path(cell), framework="pt") as file:
            about = file.metadata()
        assert (about["variant"], about["replicate"]) == (cell.variant.name, "0")
        assert json.loads(about["network"]) == cell.variant.network
        assert json.loads(about["classes"]) == [str(digit) for digit in range(10)]


def test_a_weights_file_describes_the_input_images(trained: tuple[DrivenStudy, Weights, RecordingLauncher]) -> None:
    study, weights, launcher = trained
    images, shown = images_of(launcher).some_tests(torch.arange(3))
    for cell in study.design.cells():
        inputs = KeptNetwork.read(weights.path(cell)).inputs
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (inputs.mean, inputs.std))
        assert images.shape[2:] == (inputs.side, inputs.side)
        torch.testing.assert_close((shown.float() - mean) / std, images)


@pytest.mark.parametrize(("kept", "replicates"), [("first", {0}), ("all", {0, 1}), ("off", set())])
def test_weights_of_the_requested_replicates_are_kept(tmp_path: Path, kept: str, replicates: set[int]) -> None:
    study = DrivenStudy(tmp_path, *TINY, "train.epochs=1", "sweep.factors.attention.groups=[4]")
    folder = tmp_path / "weights"
    assert drive(study, Weights(folder, kept))[0] == 0
    wanted = {f"{cell.key}.safetensors" for cell in study.design.cells() if cell.replicate in replicates}
    assert names(folder) == wanted
    assert len(wanted) == 2 * len(replicates)
    assert folder.exists() == bool(wanted)


def test_a_driver_without_weights_keeps_none(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY, "train.epochs=1", "replicates=1", "sweep.factors.attention.groups=[4]")
    drive(study, None)
    assert names(tmp_path) == {"optuna.db"}


@pytest.mark.parametrize("obstacle", ["a file in place of the folder", "a folder in place of the file", "full disk"])
def test_a_failed_write_of_weights_is_reported_and_keeps_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    study = DrivenStudy(tmp_path, *TINY, "train.epochs=1", "replicates=1", "sweep.factors.attention.groups=[4]")
    weights = Weights(tmp_path / "weights")
    plain, other = (cells(study)[name] for name in ("none r0", "groups=4 r0"))
    if obstacle == "a file in place of the folder":
        weights.folder.write_text("")
    elif obstacle == "a folder in place of the file":
        weights.path(plain).mkdir(parents=True)
        (weights.path(plain) / "x").write_text("")
    else:
        fill_disk_for(weights.path(plain), monkeypatch)
    failed, printed = drive(study, weights)
    assert failed == 0
    assert [cell.state for cell in study.store.cells()] == [CellState.FINISHED] * 2
    assert "The weights of none r0 are not saved: " in printed
    if obstacle == "a file in place of the folder":
        assert "The weights of groups=4 r0 are not saved: " in printed
    else:
        assert "groups=4 r0 are not saved" not in printed
        assert weights.path(other).is_file()
        assert not weights.path(plain).is_file()
    if obstacle == "full disk":
        assert "No space left on device" in printed
        assert names(weights.folder) == {weights.path(other).name}


def test_an_incomplete_file_never_has_the_final_name(
    tmp_path: Path, trained: tuple[DrivenStudy, Weights, RecordingLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, kept, launcher = trained
    cell, model = cells(study)["none r0"], launcher.networks["none r0"]
    weights = Weights(tmp_path / "weights")
    classes = tuple("0123456789")
    renamed = []

    class KilledError(BaseException):
        pass

    def die(path: Path, target: Path) -> Path:
        renamed.append(path)
        path.write_bytes(path.read_bytes()[:-1000])
        raise KilledError(target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KilledError):
            weights.write(cell, pack_weights(cell, model, classes, INPUTS))
    assert not weights.path(cell).exists()
    leave_partial(weights.path(cell))
    assert len(names(weights.folder)) == 1
    assert [path.parent for path in renamed] == [weights.folder]  # renames are atomic only within one file system
    weights.write(cell, pack_weights(cell, model, classes, INPUTS))
    assert names(weights.folder) == {f"{cell.key}.safetensors"}
    assert torch.equal(weights.load(cell).state_dict()["fc.weight"], kept.load(cell).state_dict()["fc.weight"])


@pytest.mark.parametrize("damage", ["empty", "one byte", "cut off early", "cut off late", "text", "other"])
def test_a_damaged_file_is_named_without_a_traceback(
    tmp_path: Path, trained: tuple[DrivenStudy, Weights, RecordingLauncher], damage: str
) -> None:
    study, kept, _ = trained
    analysis = of(study, Weights(tmp_path / "weights"))
    weights = Weights(analysis.folder / "weights")
    weights.folder.mkdir()
    variant = study.design.variants[1]
    cell = study.design.cell(variant, 0)
    good = kept.path(cell).read_bytes()
    contents = {"empty": b"", "one byte": b"P", "cut off early": good[:100], "cut off late": good[:-10]}
    path = weights.path(cell)
    if damage == "other":
        torch.save([1, 2], path)
    else:
        path.write_bytes(contents.get(damage, b"no weights at all"))
    networks = analysis.networks
    with pytest.raises(UsageError, match=r"^weights=.*\.safetensors: cannot be read \(.+\)") as caught:
        networks.load(variant)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_weights_of_another_network_are_refused(
    tmp_path: Path, trained: tuple[DrivenStudy, Weights, RecordingLauncher]
) -> None:
    study, kept, _ = trained
    weights = Weights(tmp_path / "weights")
    weights.folder.mkdir()
    variant = study.design.variants[2]
    cell = study.design.cell(variant, 0)
    other = replace(KeptNetwork.read(kept.path(cell)), state={})
    weights.write(cell, other.to_bytes())
    with pytest.raises(UsageError, match=r"cannot be read \(Error\(s\) in loading state_dict"):
        of(study, weights).networks.load(variant)


def test_networks_are_those_of_finished_cells_with_weights(
    tmp_path: Path, trained: tuple[DrivenStudy, Weights, RecordingLauncher]
) -> None:
    study, kept, _ = trained
    folder = tmp_path / "weights"
    folder.mkdir()
    for cell in list(study.design.cells())[1:]:
        Weights(folder).path(cell).write_bytes(kept.path(cell).read_bytes())
    analysis = of(study, Weights(folder))
    assert [variant.name for variant in analysis.networks.variants] == ["groups=1", "groups=4"]
    without = [cell for cell in study.store.cells() if cell.variant != "groups=1"]
    fewer = StudyAnalysis(
        analysis.config, analysis.design, collect(analysis.design, without), analysis.attributes, tmp_path
    )
    assert list(fewer.networks.cells) == ["groups=4"]
    assert isinstance(fewer.networks.load(study.design.variants[2]), nn.Module)


def test_a_study_without_weights_explains_how_to_get_them(
    tmp_path: Path, trained: tuple[DrivenStudy, Weights, RecordingLauncher]
) -> None:
    with pytest.raises(UsageError, match=r"no weights are saved in .*; `run study=<another name> weights=first` saves"):
        _ = of(trained[0], Weights(tmp_path / "weights")).networks


def test_predictions_are_those_of_the_kept_network_on_all_test_images(
    tmp_path: Path,
) -> None:
    study = DrivenStudy(tmp_path, *TINY, "train.epochs=1", "replicates=1", "data.test_images=1010")
    weights, kept = Weights(tmp_path / "weights"), PredictionFiles(tmp_path / "predictions")
    launcher = RecordingLauncher(study)
    assert study.drive(launcher, weights=weights, predictions=kept).failed == 0
    assert names(kept.folder) == {f"{cell.key}.npz" for cell in study.design.cells()}
    recipe = TrainConfig(**study.design.protocol["train"])
    for name, cell in cells(study).items():
        found, result = kept.load(cell), launcher.results[name]
        assert len(found) == 1010
        assert (found.top1, found.top5, found.ece) == (result["top1"], result["top5"], result["ece"])
        tested = evaluate(launcher.networks[name], recipe, images_of(launcher)).predictions
        assert tested.to_bytes() == found.to_bytes()


def test_predictions_are_not_kept_with_predictions_off(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY, "train.epochs=1", "replicates=1", "sweep.factors.attention.groups=[4]")
    study.drive(RecordingLauncher(study), predictions=PredictionFiles(tmp_path / "predictions", "off"))
    assert not (tmp_path / "predictions").exists()


def test_a_failed_write_of_predictions_is_reported_and_keeps_the_result(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY, "train.epochs=1", "replicates=1", "sweep.factors.attention.groups=[4]")
    (tmp_path / "predictions").write_text("")
    assert study.drive(RecordingLauncher(study), predictions=PredictionFiles(tmp_path / "predictions")).failed == 0
    for name in cells(study):
        assert worded("predictions.unkept", cell=name) in study.said.getvalue()


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "study" / "checkpoints")


def test_the_latest_checkpoint_of_a_cell_is_read_until_it_is_removed(checkpoints: Checkpoints) -> None:
    first, second = CELLS[:2]
    assert checkpoints.read(first) is None
    for content in (b"first", b"second"):
        checkpoints.write(first, content)
    checkpoints.write(second, b"other")
    assert (checkpoints.read(first), checkpoints.read(second)) == (b"second", b"other")
    assert names(checkpoints.folder) == {f"{cell.key}.pt" for cell in (first, second)}
    checkpoints.remove(first)
    checkpoints.remove(first)
    assert (checkpoints.read(first), checkpoints.read(second)) == (None, b"other")
    checkpoints.remove(second)
    assert not checkpoints.folder.exists()


@NEEDS_FULL_DISK
def test_a_failed_checkpoint_removes_the_earlier_one_of_the_same_cell_only(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = CELLS[:2]
    checkpoints.write(first, b"first")
    checkpoints.write(second, b"other")
    fill_disk_for(checkpoints.path(first), monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(first, b"second")
    assert (checkpoints.read(first), checkpoints.read(second)) == (None, b"other")
    assert names(checkpoints.folder) == {f"{second.key}.pt"}


def test_partial_files_of_a_killed_writer_are_removed_with_the_checkpoint(checkpoints: Checkpoints) -> None:
    first, second = CELLS[:2]
    for cell in (first, second):
        checkpoints.write(cell, b"whole")
        leave_partial(checkpoints.path(cell))
    checkpoints.remove(first)
    assert len(names(checkpoints.folder)) == 2
    assert all(second.key in name for name in names(checkpoints.folder))
    checkpoints.remove(second)
    assert not checkpoints.folder.exists()
