"""MLflow's store in folders with unusual names, and names longer than its columns."""

from __future__ import annotations

from pathlib import Path

from ablations.common.urls import file_url, sqlite_url
from ablations.tracking.destination import Destination
from ablations.tracking.experiment import LONGEST_NAME, open_experiment

ODD = "o'brien 50% %41 {x} what? #1 & [b] größe 研究"


def test_a_store_and_its_files_are_at_their_path(tmp_path: Path) -> None:
    folder = tmp_path / ODD / ODD
    folder.mkdir(parents=True)
    experiment = open_experiment(Destination(sqlite_url(folder / "mlflow.db"), "mine", folder / "artifacts"))
    run_id = experiment.create_run("x" * 1000)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("a")
    experiment.log_files(run_id, tmp_path / "files")
    run = experiment.client.get_run(run_id)
    assert run.info.run_name == "x" * LONGEST_NAME
    assert (run.info.artifact_uri or "").startswith(file_url(folder / "artifacts"))
    assert (folder / "artifacts" / run_id / "artifacts" / "a.txt").read_text() == "a"
    # The folder that MLflow creates from the encoded URL is removed.
    assert {path.name for path in tmp_path.iterdir()} == {ODD, "files"}
    assert [path.name for path in (tmp_path / ODD).iterdir()] == [ODD]
