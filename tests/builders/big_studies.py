"""Studies of many finished cells, built in seconds.

Contents come from the suite: keys, networks and protocol from the design, results from `Result.to_dict`, calls to
MLflow from `Tracker.sync`. Only the writing is in bulk: one transaction per store instead of several per cell.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from mlflow.entities import DatasetInput, Metric, Param, RunTag
from mlflow.store.entities import PagedList
from mlflow.store.tracking.dbmodels import models as mlflow_models
from optuna.trial import TrialState, create_trial

from ablations.analysis.costs import costs_on
from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.data import load_images
from ablations.design import Cell, Design, make_design
from ablations.storage.parameters import distributions_of, parameters_of
from ablations.storage.paths import storage_url
from ablations.storage.study import StudyStore, open_store
from ablations.tracking import destination_of
from ablations.tracking.tracker import Tracker
from ablations.training.train import Epoch, Result
from tests.builders.costs import machine_of, usual_attributes, usual_costs
from tests.builders.picks import some_picks

ENVIRONMENT = {"cpu": "a processor, 2 cores", "gpu": "none", "python": "3.11", "commit": "0" * 40}
Outcomes = list[tuple[Cell, dict[str, Any] | None]]  # None: the cell failed
_BEGUN = 1_700_000_000.0  # Unix time


@dataclass(frozen=True)
class BigStudy:
    """A stored study: its overrides, its design, and its cells with their outcomes."""

    overrides: list[str]
    design: Design
    outcomes: Outcomes


def make_big_study(
    folder: Path,
    *overrides: str,
    picked: int = 0,
    failed: int = 0,
    pruned: int = 0,
    missing: int = 0,
    mirrored: bool = True,
) -> BigStudy:
    """Stores a study in `folder` whose cells are finished, except as specified.

    Args:
        folder: folder of results.
        overrides: overrides on the command line of the study.
        picked: number of variants that a search picks, at random.
        failed: number of cells that failed, at the end of the study.
        pruned: number of picked variants, from the first, that were pruned after a third of the epochs.
        missing: number of cells that have not started, at the end of the study.
        mirrored: whether the finished cells are in MLflow.
    """
    typed = ["device=cpu", *overrides, f"results_dir={folder}"]
    config = compose_config(typed)
    design = make_design(config)
    folder.mkdir(parents=True, exist_ok=True)
    store = open_store(storage_url(config), design.study, create=True, directions=design.directions)
    store.initialise(design)
    images = load_images(config.data)
    store.remember("data_fingerprint", images.fingerprint)
    store.remember("data", {"train": len(images.train), "test": len(images.test), "classes": images.classes})
    store.remember("command", f"python -m ablations.run {' '.join(typed)}")
    picks = some_picks(config, design, picked)
    given_up = [variant.name for variant in picks[:pruned]]
    everything = replace(design, variants=(*design.variants, *picks))
    for name, value in usual_attributes(everything).items():
        store.remember(name, value)
    costs = costs_on(machine_of(everything, usual_costs(everything)), everything)
    if picks:
        tried = replace(design, variants=(*design.variants, *picks))
        confirmed = picks[pruned:][: design.confirm]  # regardless of their results
        design = replace(design, variants=(*design.variants, *confirmed))
        cells = [*tried.selection_cells(), *design.cells()]
    else:
        cells = list(design.cells())
    outcomes: Outcomes = []
    epochs = config.train.epochs
    for number, cell in enumerate(cells[: len(cells) - missing]):
        if number >= len(cells) - missing - failed:
            outcomes.append((cell, None))
            continue
        if cell.variant.name in given_up:
            result = result_of(cell, max(2, epochs // 3)).to_dict()
            outcome = {"result": {"epochs": result["epochs"]}, "pruned": "worse than the median of the others"}
        else:
            objectives = {
                key: value for key, value in costs.of(cell.variant.name).metrics.items() if key in design.objectives
            }
            outcome = {"result": result_of(cell, epochs).to_dict() | objectives}
        outcomes.append((cell, outcome | {"environment": ENVIRONMENT | {"threads": "2"}}))
    _store(store, storage_url(config), design, outcomes)
    if mirrored:
        _mirror(config, design, store, outcomes, images.fingerprint)
    return BigStudy(typed, design, outcomes)


def result_of(cell: Cell, epochs: int) -> Result:
    """Returns a result like that of training: a replicate effect, a variant effect, and noise of the cell."""
    shared = np.random.default_rng(cell.replicate).normal(0, 0.6)
    of_variant = np.random.default_rng(list(cell.variant.name.encode()))
    better, slower, larger = of_variant.normal(0, 0.5), abs(of_variant.normal(0.2, 0.1)), of_variant.integers(0, 900)
    plain = cell.variant.attention["name"] == "none"
    if plain:
        better, slower, larger = 0.0, 0.0, 0
    noise = np.random.default_rng(int(cell.key, 16))
    top1 = np.clip(62 + better + shared + noise.normal(0, 0.4), 0, 100).round(2)
    ratio = 1 + slower + noise.normal(0, 0.01)
    curve = tuple(
        Epoch(
            epoch=index,
            train_loss=float(2.3 * 0.8 ** (index + 1) + noise.normal(0, 0.02)),
            test_loss=float(2.3 * 0.82 ** (index + 1) + noise.normal(0, 0.02)),
            top1=float(top1 if index == epochs - 1 else top1 * (1 - 0.5 ** (index + 1))),
            learning_rate=0.1 * (1 - index / epochs),
            seconds=float(1.4 * ratio + noise.normal(0, 0.01)),
            finished=_BEGUN + cell.replicate * 60 + index * 1.5,
        )
        for index in range(epochs)
    )
    by, parameters = "" if plain else "kernels", 75_000 + int(larger)
    return Result(curve[-1].top1, curve[-1].test_loss, parameters, float(1.6 * epochs * ratio), curve, by)


def _store(store: StudyStore, url: str, design: Design, outcomes: Outcomes) -> None:
    """Writes outcomes of cells, which `StudyStore` writes one by one with a transaction per trial."""
    choices = store.attributes["parameters"]
    distributions = distributions_of(choices)
    begun = datetime(2026, 1, 1)
    trials = []
    for number, (cell, outcome) in enumerate(outcomes):
        state, values, steps = TrialState.FAIL, None, {}
        came_of_it: dict[str, Any] = {"failure": {"kind": "error", "reason": "RuntimeError: out of memory"}}
        if outcome is not None:
            came_of_it = {"outcome": json.dumps(outcome)}
            state = TrialState.PRUNED if "pruned" in outcome else TrialState.COMPLETE
            if len(design.objectives) == 1:
                steps = {epoch["epoch"] + 1: epoch["top1"] for epoch in outcome["result"]["epochs"]}
        if outcome is not None and state == TrialState.COMPLETE:
            values = [outcome["result"][objective] for objective in design.objectives]
        described = {
            "cell": cell.key,
            "variant": cell.variant.name,
            "replicate": cell.replicate,
            "split": cell.split.value,
            "network": cell.variant.network,
            "levels": cell.variant.levels,
        }
        trial = create_trial(
            state=state,
            values=values,
            params=parameters_of(cell.variant.network, choices),
            distributions=distributions,
            user_attrs=described | came_of_it,
            intermediate_values=steps,
        )
        trial.datetime_start = begun + timedelta(seconds=10 * number)
        trial.datetime_complete = begun + timedelta(seconds=10 * number + 9)
        trials.append(trial)
    optuna.load_study(storage=url, study_name=design.study).add_trials(trials)


def _mirror(config: Config, design: Design, store: StudyStore, outcomes: Outcomes, fingerprint: str) -> None:
    """Mirrors finished cells, as a run does if MLflow has none of them."""
    destination = destination_of(config, design.study)
    tracker = Tracker(destination, design, store.id)
    real = tracker.experiment.client
    bulk = _BulkClient(destination.uri, destination.artifacts)
    tracker.experiment.client = bulk  # type: ignore[assignment]
    finished = [(cell, outcome) for cell, outcome in outcomes if outcome is not None]
    tracker.sync(finished, fingerprint)
    assert tracker.lost is None, tracker.lost
    bulk.write()
    tracker.experiment.client = real
    tracker.end("FINISHED")


@dataclass
class _BulkClient:
    """Collects the calls of a tracker to MLflow, and writes them at once."""

    uri: str
    artifacts: Path
    runs: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    params: list[dict[str, Any]] = field(default_factory=list)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    data: dict[str, DatasetInput] = field(default_factory=dict)

    def create_run(self, experiment_id: str, run_name: str, tags: dict[str, str]) -> Any:
        run_id = uuid.uuid4().hex
        begun = int(_BEGUN * 1000) + 10_000 * len(self.runs)
        self.runs.append(
            {
                "run_uuid": run_id,
                "name": run_name,
                "source_type": "UNKNOWN",
                "source_name": "",
                "entry_point_name": "",
                "user_id": "unknown",
                "status": "RUNNING",
                "start_time": begun,
                "end_time": begun + 9000,
                "source_version": "",
                "lifecycle_stage": "active",
                "artifact_uri": f"{self.artifacts.resolve().as_uri()}/{run_id}/artifacts",
                "experiment_id": int(experiment_id),
            }
        )
        self._set_tags(run_id, tags | {"mlflow.runName": run_name})
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id, status="RUNNING"))

    def log_batch(
        self,
        run_id: str,
        metrics: Iterable[Metric] = (),
        params: Iterable[Param] = (),
        tags: Iterable[RunTag] = (),
    ) -> None:
        self.metrics += [
            {
                "run_uuid": run_id,
                "key": entry.key,
                "value": entry.value,
                "timestamp": entry.timestamp,
                "step": entry.step,
                "is_nan": False,
            }
            for entry in metrics
        ]
        self.params += [{"run_uuid": run_id, "key": entry.key, "value": entry.value} for entry in params]
        self._set_tags(run_id, {tag.key: tag.value for tag in tags})

    def log_inputs(self, run_id: str, datasets: Sequence[DatasetInput]) -> None:
        self.data[run_id] = datasets[0]

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self._set_tags(run_id, {key: value})

    def set_terminated(self, run_id: str, status: str) -> None:
        next(run for run in reversed(self.runs) if run["run_uuid"] == run_id)["status"] = status

    def get_run(self, run_id: str) -> Any:
        tags = {key: self.tags[run_id, key] for key in ("failure",) if (run_id, key) in self.tags}
        return SimpleNamespace(data=SimpleNamespace(tags=tags))

    def search_runs(self, *_: Any, **__: Any) -> Any:
        return PagedList([], None)

    def _set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        self.tags.update({(run_id, key): value for key, value in tags.items()})

    def write(self) -> None:
        """Writes everything in one transaction."""
        latest = {(row["run_uuid"], row["key"]): row for row in self.metrics}  # metrics are in the order of their steps
        datasets = {(data.dataset.name, data.dataset.digest): data for data in self.data.values()}
        names = {key: uuid.uuid4().hex for key in datasets}
        inputs = {run: (uuid.uuid4().hex, data) for run, data in self.data.items()}
        experiment = self.runs[0]["experiment_id"]
        rows = {
            mlflow_models.SqlRun: self.runs,
            mlflow_models.SqlTag: [
                {"run_uuid": run, "key": key, "value": value} for (run, key), value in self.tags.items()
            ],
            mlflow_models.SqlParam: self.params,
            mlflow_models.SqlMetric: self.metrics,
            mlflow_models.SqlLatestMetric: list(latest.values()),
            mlflow_models.SqlDataset: [
                {
                    "dataset_uuid": names[key],
                    "experiment_id": experiment,
                    "name": data.dataset.name,
                    "digest": data.dataset.digest,
                    "dataset_source_type": data.dataset.source_type,
                    "dataset_source": data.dataset.source,
                }
                for key, data in datasets.items()
            ],
            mlflow_models.SqlInput: [
                {
                    "input_uuid": input_id,
                    "source_type": "DATASET",
                    "source_id": names[data.dataset.name, data.dataset.digest],
                    "destination_type": "RUN",
                    "destination_id": run,
                    "step": 0,
                }
                for run, (input_id, data) in inputs.items()
            ],
            mlflow_models.SqlInputTag: [
                {"input_uuid": input_id, "name": tag.key, "value": tag.value}
                for input_id, data in inputs.values()
                for tag in data.tags
            ],
        }
        engine = sqlalchemy.create_engine(self.uri)
        with engine.begin() as connection:
            for model, table_rows in rows.items():
                columns = {column.name for column in model.__table__.columns}
                connection.execute(
                    sqlalchemy.insert(model.__table__).prefix_with("OR IGNORE"),
                    [{key: value for key, value in row.items() if key in columns} for row in table_rows],
                )
        engine.dispose()


optuna.logging.set_verbosity(optuna.logging.WARNING)
