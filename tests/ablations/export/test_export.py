"""Exports of one stored study, read back by the programs they are written for."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from ablations.analysis.study import StudyAnalysis
from ablations.common.errors import SuiteError
from ablations.common.metrics import EPOCH_METRICS
from ablations.common.parts import Parts
from ablations.config.compose import compose_config
from ablations.export import check_exports, export_study
from ablations.training.weights import KeptNetwork
from tests.builders.analyses import study_analysis
from tests.builders.kept import keep_weights
from tests.wording import refusal, worded

VARIANTS = ("none", "groups=2", "groups=4")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyAnalysis:
    """Three variants with two replicates; the first replicates have weights."""
    analysis = study_analysis(tmp_path_factory.mktemp("results") / "study")
    keep_weights(analysis)
    return analysis


def exported(study: StudyAnalysis, name: str) -> list[Path]:
    parts = Parts()
    made = export_study(study, [name], parts)
    assert parts.missing == []
    return made


def wandb_records(content: bytes) -> Iterator[bytes]:
    """The records of a W&B file: LevelDB's log format, in blocks of 32 KiB, after a header of 7 bytes.

    See https://github.com/google/leveldb/blob/main/doc/log_format.md.
    """
    at, parts = 7, b""
    while at + 7 <= len(content):
        if 32_768 - at % 32_768 < 7:  # the rest of the block is padding
            at += 32_768 - at % 32_768
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a complete record, or its last part
            yield parts
            parts = b""


def test_csv_and_parquet_tables_are_tidy_and_equal(study: StudyAnalysis) -> None:
    csv = {path.stem: pd.read_csv(path) for path in exported(study, "csv")}
    parquet = {path.stem: pd.read_parquet(path) for path in exported(study, "parquet")}
    assert list(csv) == list(parquet) == ["results", "epochs", "contrasts"]
    for name, frame in csv.items():
        assert list(frame.columns) == list(parquet[name].columns)
        assert set(frame["study"]) == {study.design.study}
        assert set(frame["recipe"]) == {"study"}
        numbers = frame.select_dtypes("number")
        np.testing.assert_allclose(numbers, parquet[name][numbers.columns].astype(float))
        assert frame["variant"].tolist() == parquet[name]["variant"].tolist()
    pd.testing.assert_series_equal(csv["results"]["top1"], study.results.cells["top1"])
    assert len(csv["epochs"]) == 6
    judged = csv["contrasts"].set_index("variant")
    for contrast in study.contrasts:
        assert contrast.difference is not None
        assert judged.loc[contrast.variant, "difference"] == pytest.approx(contrast.difference.mean)
        assert judged.loc[contrast.variant, "verdict"] == contrast.verdict.value


def test_levels_of_mixed_type_are_text_in_parquet(tmp_path: Path) -> None:
    study = study_analysis(tmp_path, ["sweep.factors={attention.groups:[1,auto]}"])
    results, *_ = exported(study, "parquet")
    assert set(pd.read_parquet(results)["attention.groups"].dropna()) == {"1", "auto"}


def test_tensorboard_reads_the_epochs_and_results_of_every_cell(study: StudyAnalysis) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for _ in range(2):  # the second export replaces the first
        (folder,) = exported(study, "tensorboard")
    read = {}
    for path in folder.rglob("events.*"):
        events = accumulator.EventAccumulator(str(path.parent)).Reload()
        read[path.parent.relative_to(folder).as_posix()] = events
    assert set(read) == {f"{name}/r{number}" for name in ("none", "groups-2", "groups-4") for number in range(2)}
    for events in read.values():
        assert set(EPOCH_METRICS) < set(events.Tags()["scalars"])
        assert [(event.step, event.value) for event in events.Scalars("top1")] == [(1, 1.0)]
    top1 = study.results.cells.set_index(["variant", "replicate"])["top1"]["groups=4", 1]
    assert [event.value for event in read["groups-4/r1"].Scalars("result/top1")] == [top1]


def test_weights_and_biases_runs_are_written_offline_and_are_readable(
    study: StudyAnalysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    monkeypatch.setenv("WANDB_MODE", "online")  # which the export ignores
    for _ in range(2):
        (folder,) = exported(study, "wandb")
    files = sorted(folder.glob("offline-run-*/run-*.wandb"))
    keys = {cell.key for cell in study.design.cells()}
    assert {path.stem.removeprefix("run-") for path in files} == keys
    assert len(files) == len(keys)
    for path in files:
        read = [proto.Record.FromString(data) for data in wandb_records(path.read_bytes())]
        kinds = {record.WhichOneof("record_type"): record for record in read}
        assert {"run", "history", "summary", "exit"} <= set(kinds)
        run = kinds["run"].run
        assert run.project == study.design.study
        assert run.run_group in VARIANTS
        assert {entry.key for entry in run.config.update} >= {"variant", "attention", "train.epochs"}
        epoch = {entry.key or entry.nested_key[0]: entry.value_json for entry in kinds["history"].history.item}
        assert float(epoch["top1"]) == 1.0


def test_a_card_has_front_matter_results_and_code_that_loads_the_network(study: StudyAnalysis) -> None:
    (folder,) = exported(study, "cards")
    cards = {path.stem: path for path in folder.iterdir()}
    assert set(cards) == {"none-r0", "groups-2-r0", "groups-4-r0"}
    text = cards["groups-4-r0"].read_text()
    _, front, body = text.split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["pipeline_tag"] == "image-classification"
    (result,) = about["model-index"][0]["results"]
    top1 = study.results.cells.set_index(["variant", "replicate"])["top1"]["groups=4", 0]
    assert result["metrics"][0]["value"] == pytest.approx(top1 / 100)
    assert "groups=4 against none: " in body
    (link,) = re.findall(r"\]\((\S+\.safetensors)\)", body)
    weights = (folder / link).resolve()
    assert KeptNetwork.read(weights).variant == "groups=4"
    (code,) = re.findall(r"```\n(.*?)```", body, re.DOTALL)
    script = f"{code}\nassert not network.training"
    subprocess.run([sys.executable, "-c", script], cwd=weights.parent, check=True)


def test_without_kept_weights_cards_are_skipped_and_other_exports_are_made(tmp_path: Path) -> None:
    study, parts = study_analysis(tmp_path), Parts()
    made = export_study(study, ["cards", "csv"], parts)
    assert [path.name for path in made] == ["results.csv", "epochs.csv", "contrasts.csv"]
    (missing,) = parts.missing
    assert worded("export.none_kept", folder=tmp_path / "weights") in missing.reason


def test_cards_without_weights_are_refused_before_training() -> None:
    config = compose_config(["export=[cards]", "weights=off"])
    with pytest.raises(SuiteError, match=refusal("export=cards", "export.no_weights")):
        check_exports(config, trains=True)
    check_exports(config, trains=False)


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_before_training(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SuiteError, match=refusal(f"export={package}", "export.package", package=package)):
        check_exports(compose_config([f"export=[csv,{package}]"]), trains=True)


def test_a_list_of_exports_may_be_empty_and_unknown_formats_are_refused() -> None:
    with pytest.raises(SuiteError, match=r"^export=xlsx: .*csv, parquet"):
        compose_config(["export=[csv,xlsx]"])
    assert compose_config(["export=[]"]).export == []
