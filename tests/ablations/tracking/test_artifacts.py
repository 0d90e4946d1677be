"""Artifact addresses in MLflow's database after their folders have moved."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ablations.tracking.artifacts import follow_artifacts, is_gone, update_addresses
from ablations.tracking.destination import Destination
from ablations.tracking.experiment import open_experiment

NAMES = ("one", "two")


class Results:
    """A results folder with two experiments, each with one run that has a file."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder, self.store = folder, store

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.store}"

    def artifacts(self, name: str) -> Path:
        return self.folder / "mlflow-artifacts" / name

    def write(self, name: str, content: str) -> None:
        source = self.folder / name
        source.mkdir(exist_ok=True)
        (source / "report.md").write_text(content, encoding="utf-8")
        experiment = open_experiment(Destination(self.uri, name, self.artifacts(name)))
        experiment.log_files(experiment.create_run("report"), source)

    def addresses(self, name: str) -> list[str]:
        """The addresses of the experiment and of its runs."""
        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name(name)
        runs = client.search_runs([experiment.experiment_id])
        return [experiment.artifact_location, *(run.info.artifact_uri for run in runs)]

    def read(self, name: str) -> list[str]:
        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name(name)
        runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
        paths = [Path(client.download_artifacts(run.info.run_id, "report.md")) for run in runs]
        return [path.read_text(encoding="utf-8") for path in paths]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    folder = tmp_path / "old results"  # a blank is %20 in an address
    folder.mkdir()
    made = Results(folder, folder / "mlflow.db")
    for name in NAMES:
        made.write(name, f"{name} before")
    return made


def moved(results: Results) -> Path:
    return results.folder.rename(results.folder.with_name("new % results"))


def copied(results: Results) -> Path:
    return Path(shutil.copytree(results.folder, results.folder.with_name("copy")))


def linked(results: Results) -> Path:
    place = results.folder.rename(results.folder.with_name("elsewhere"))
    link = place.with_name("link")
    link.symlink_to(place)
    return link


@pytest.mark.parametrize("how", [moved, copied, linked])
def test_a_moved_store_has_only_addresses_in_its_new_folder(results: Results, how: Callable[[Results], Path]) -> None:
    before = sorted(path for path in results.folder.rglob("*") if path.is_file()) if how is copied else []
    folder = how(results)
    there = Results(folder, folder / "mlflow.db")
    there.write("one", "one after")
    for name in NAMES:  # of all experiments, not only of the opened one
        place = folder.resolve().as_uri()
        assert all(address.startswith(f"{place}/mlflow-artifacts/{name}") for address in there.addresses(name))
    assert there.read("one") == ["one before", "one after"]
    assert there.read("two") == ["two before"]
    assert sorted(path for path in results.folder.rglob("*") if path.is_file()) == before


def test_a_store_has_no_address_outside_the_results_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow's default location
    (tmp_path / "results").mkdir()
    original = Results(tmp_path / "results", tmp_path / "results" / "mlflow.db")
    original.write("one", "one")
    assert original.addresses("Default") == [(original.folder / "mlflow-artifacts" / "0").as_uri()]


def test_read_only_verbs_update_addresses_if_possible(results: Results) -> None:
    folder = moved(results)
    there = Results(folder, folder / "mlflow.db")
    follow_artifacts(there.uri, there.artifacts("one"))
    assert there.read("one") == ["one before"]


def test_read_only_verbs_ignore_stores_that_are_invalid_or_not_writable(results: Results) -> None:
    folder = moved(results)
    there = Results(folder, folder / "mlflow.db")
    there.store.write_bytes(b"")  # empty: MLflow fills it
    follow_artifacts(there.uri, there.artifacts("one"))
    there.store.write_bytes(b"something else" * 100)
    follow_artifacts(there.uri, there.artifacts("one"))
    there.store.unlink()
    follow_artifacts(there.uri, there.artifacts("one"))
    assert not there.store.exists()


def test_in_an_external_store_only_experiments_with_a_missing_folder_are_updated(tmp_path: Path) -> None:
    store = tmp_path / "shared.db"
    mine, theirs = (Results(tmp_path / name, store) for name in ("mine", "theirs"))
    for external in (mine, theirs):
        external.folder.mkdir()
    mine.write("one", "mine")
    theirs.write("two", "theirs")
    new = Results(mine.folder.rename(tmp_path / "new"), store)
    update_addresses(new.uri, new.artifacts("two"))  # its folder exists
    assert new.addresses("two") == theirs.addresses("two")
    assert all(address.startswith(theirs.folder.as_uri()) for address in new.addresses("two"))
    update_addresses(new.uri, new.artifacts("one"))
    assert new.read("one") == ["mine"]
    assert all(address.startswith(theirs.folder.as_uri()) for address in new.addresses("two"))


def test_addresses_of_other_programs_are_unchanged(results: Results) -> None:
    client = MlflowClient(results.uri)
    others = {"s3": "s3://bucket/mlflow-artifacts/s3", "own": (results.folder.parent / "models").as_uri()}
    for name, address in others.items():
        client.create_experiment(name, artifact_location=address)
    folder = moved(results)
    there = Results(folder, folder / "mlflow.db")
    there.write("one", "again")
    assert {name: there.addresses(name) for name in others} == {name: [at] for name, at in others.items()}


def test_files_are_not_written_to_a_missing_folder(results: Results) -> None:
    experiment = open_experiment(Destination(results.uri, "one", results.artifacts("one")))
    run_id = experiment.create_run("report")
    old = results.folder
    source = moved(results) / "one"
    (address,) = {experiment.client.get_run(run_id).info.artifact_uri}
    assert is_gone(address)
    with pytest.raises(FileNotFoundError, match="that results folder is not there"):
        experiment.log_files(run_id, source)
    assert not old.exists()


@pytest.mark.parametrize(
    "address", ["mlflow-artifacts:/0/a/artifacts", "s3://bucket/mlflow-artifacts/0", "", "./mlruns/0"]
)
def test_addresses_of_servers_never_count_as_missing(address: str) -> None:
    assert not is_gone(address)
