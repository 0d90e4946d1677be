"""Storage of a study in Optuna, through its public API: trained cells and their outcomes.

An attempt at a cell is one trial, created when its training starts by the only writer, the driver; its states are those
of `ablations.storage.cell_states`. Its parameters are the options that the study varies
(`ablations.storage.parameters`), its value is the objective, its intermediate values are the objective after every
epoch, and its user attributes identify the cell and have its outcome as JSON. A killed driver leaves a RUNNING trial;
the next driver finishes it if its outcome was stored, otherwise marks it as interrupted. The outcome is stored before
the trial is told, so a kill neither loses a finished cell nor trains it twice.

A database that does not respond is retried for some minutes (`Persistence`). The first attempt may have succeeded
without a response, so every retried action is idempotent or checks first.
"""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import optuna
from optuna.pruners import MedianPruner
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ablations.common.metrics import EPOCH_METRICS
from ablations.common.process import without_collecting_garbage
from ablations.common.settings import as_stored, flatten
from ablations.common.urls import hide_passwords
from ablations.config import TrainConfig
from ablations.design import Cell, Design, Split, protocol_differences
from ablations.design.declaration import Change, Declaration, History, keeps_replicates
from ablations.design.tuning import recipe_of
from ablations.storage.access import Persistence, is_empty, reached, study_names
from ablations.storage.cell_states import StoredCell, latest_attempts, stored_cell
from ablations.storage.database import database_file
from ablations.storage.errors import StorageError, StudyFormatError, StudyInUseError, StudyMismatchError
from ablations.storage.parameters import choices_of, distributions_of, parameters_of
from ablations.training.events import Epoch

NOT_RUN = "create it with `run` and the same options"  # advice if the study does not exist
FORMAT = 5  # of the store; other formats are refused


class StudyStore:
    """One study in Optuna's database; created by `open_store` or `find_study`.

    Every method raises StorageError if the database fails or does not respond for minutes.
    """

    def __init__(self, study: optuna.Study, persistence: Persistence) -> None:
        self._study, self._persistence = study, persistence
        self._attributes: dict[str, Any] | None = None
        self._attempts: dict[int, StoredCell] = {}  # by the number of the trial
        self._trials: dict[str, optuna.Trial] = {}  # of the cells in training, by their keys
        self._reported: dict[str, int] = {}  # their last reported epochs

    @property
    def name(self) -> str:
        """The name of the study."""
        return str(self._study.study_name)

    @property
    def attributes(self) -> dict[str, Any]:
        """The study's user attributes, read once, because there is no other writer."""
        if self._attributes is None:
            self._attributes = self._persistence.read(lambda: self._study.user_attrs)
        return self._attributes

    @property
    def is_empty(self) -> bool:
        """Whether the study has not been initialised."""
        return "identity" not in self.attributes

    @property
    def format(self) -> int | None:
        """The format of the stored study; None if it is not initialised or of another program."""
        return None if self.is_empty else int(self.attributes["identity"]["version"])

    @property
    def is_foreign(self) -> bool:
        """Whether the study has trials of another program."""
        return any("cell" not in trial.user_attrs for trial in self._all_trials())

    @property
    def id(self) -> str:
        """Distinguishes studies of the same name, in a store that several people share."""
        return str(self.attributes["identity"]["id"])

    @cached_property
    def objectives(self) -> list[str]:
        """The metrics that the study optimizes, in the order of its trials' values; they never change."""
        return list(self.attributes["identity"]["objectives"])

    @cached_property
    def _selects(self) -> bool:
        return "validation" in self.protocol["data"]

    @property
    def protocol(self) -> dict[str, Any]:
        """The settings common to all cells; raises StudyFormatError if another version stored the study."""
        if self.format != FORMAT:
            raise StudyFormatError(self.name, self.format, FORMAT)
        return dict(self.attributes["identity"]["protocol"])

    @property
    def networks(self) -> dict[str, dict[str, Any]]:
        """The networks that the study compares by name, including those without a trained cell."""
        return dict(self.attributes.get("networks", {}))

    def remember(self, name: str, value: Any) -> None:
        """Sets a user attribute of the study, unless it already has this value."""
        if self.attributes.get(name) != value:
            self._persistence.write(lambda _: self._study.set_user_attr(name, value))
            self._attributes = None

    def cells(self) -> list[StoredCell]:
        """Returns the effective attempt of every cell, in the order in which the cells were first started.

        Raises StudyFormatError if there are trials of another program.
        """
        for trial in self._all_trials():
            known = self._attempts.get(trial.number)
            if known is None and "cell" not in trial.user_attrs:
                raise StudyFormatError(self.name, None, FORMAT)
            # A waiting trial is of a driver that was killed while starting it.
            if trial.state != TrialState.WAITING and (known is None or known.is_open):
                self._attempts[trial.number] = stored_cell(trial)
        return list(latest_attempts(self._attempts.values()).values())

    def outcomes(self, design: Design) -> list[tuple[Cell, Mapping[str, Any]]]:
        """Returns all finished cells of a design's variants with their outcomes.

        They include replicates that the design does not have, or no longer has.
        """
        variants = {json.dumps(as_stored(variant.network), sort_keys=True): variant for variant in design.variants}
        found = []
        for stored in self.cells():
            variant = variants.get(json.dumps(stored.network, sort_keys=True))
            if variant is not None and stored.outcome is not None:
                cell = design.cell(replace(variant, recipe=stored.recipe), stored.replicate, stored.split)
                found += [(cell, stored.outcome)] if cell.key == stored.key else []
        return found

    def initialise(self, design: Design) -> None:
        """Initialises the study for `design`, or checks that it matches; raises as `check`."""
        if not self.is_empty:
            self.check(design, f"to start a new study, add study={design.study}-2 (or any name)")
        else:
            self.cells()  # raises for a study of another program
            identity = {"version": FORMAT, "protocol": design.protocol, "objectives": design.objectives}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._persistence.write(lambda _: self._study.set_metric_names(list(design.objectives)))
            self.remember("identity", identity | {"id": uuid.uuid4().hex})
        for name in ("sweep", "question", "baseline"):
            self.remember(name, getattr(design, name))
        self.remember("networks", self.networks | _networks(design))
        varied = (*design.varied, *(design.tuning.space if design.tuning else ()))
        self.remember("parameters", choices_of(varied, design.variants, self.attributes.get("parameters", {})))

    def check(self, design: Design, advice: str) -> None:
        """Checks that the stored study matches `design`.

        Raises:
            StudyMismatchError: if protocol, objectives, or networks of the same name differ; ends with `advice`.
            StudyFormatError: if it was stored by another version of the suite or another program.
        """
        differences = protocol_differences(self.protocol, as_stored(design.protocol))
        if differences:
            raise _mismatch(self.name, f"is stored with a different protocol; {advice}", differences)
        stored, asked = ", ".join(self.objectives), ", ".join(design.objectives)
        if stored != asked:
            reason = f"is stored with the objectives {stored}, not {asked}; {advice}"
            raise StudyMismatchError("study", self.name, reason)
        networks = _networks(design)
        for cell in self.cells():
            asked_network = networks.get(cell.variant, cell.network)
            if asked_network != cell.network:
                reason = f"is stored with a different network named {cell.variant}; {advice}"
                raise _mismatch(self.name, reason, protocol_differences(cell.network, asked_network))

    def declare(self, asked: Declaration, *, trains: bool) -> list[Change]:
        """Stores the declaration of a study before its first cell, and later its changes.

        Returns the changes since the last declaration. If `trains` is False, fewer replicates than declared are no
        change if they are complete. A study that has cells but no declaration stays without one.
        """
        cells, known = self.cells(), History.stored(self.attributes.get("declared"))
        if not cells:
            self.remember("declared", History.begun(asked).as_stored())
            return []
        if known is None:
            return []
        done = ((cell.variant, cell.replicate) for cell in cells if cell.state.is_done)
        if not trains and keeps_replicates(asked, known.latest, done):
            asked = asked.with_replicates_of(known.latest)
        history = known.then(asked)
        self.remember("declared", history.as_stored())
        return list(history.changes[len(known.changes) :])

    def settle_threads(self, threads: int | str, default: int) -> int:
        """Returns the number of threads of all cells of the study; `default` if it starts with `auto`.

        Raises StorageError if the study was started with another number.
        """
        stored = self.attributes.get("threads")
        requested = threads if isinstance(threads, int) else stored or default
        if stored is not None and stored != requested:
            reason = (
                f"the study was started with threads={stored}, on which results depend in the last digits; to start a "
                f"new study, add study={self.name}-2 (or any name)"
            )
            raise StorageError("threads", requested, reason)
        self.remember("threads", requested)
        return requested

    def take_over(self) -> None:
        """Ends the trials of a killed driver: finishes those with an outcome, marks the rest as interrupted."""
        self._persistence.write(lambda _: self._close_waiting())
        for cell in self.cells():
            if cell.is_open:
                self._tell(cell.number, cell.outcome)

    def start(self, cell: Cell) -> None:
        """Starts an attempt at a cell; raises StudyInUseError if another process has one in progress."""
        if any(stored.is_open and stored.key == cell.key for stored in self.cells()):
            reason = "is locked by another process"
            raise StudyInUseError("study", self.name, reason)
        choices = self.attributes["parameters"]
        recipe = flatten({"train": asdict(recipe_of(TrainConfig(**self.protocol["train"]), cell.variant))})
        parameters = parameters_of(cell.variant.network, choices, recipe)
        distributions = distributions_of(choices)
        described = {
            "cell": cell.key,
            "variant": cell.variant.name,
            "replicate": cell.replicate,
            "split": cell.split.value,
            "network": cell.variant.network,
            "levels": cell.variant.levels,
        }
        described |= {"recipe": cell.variant.recipe} if cell.variant.recipe else {}
        described |= {"tuning": cell.tuning} if cell.tuning else {}

        def begin(is_retry: bool) -> optuna.Trial:
            if is_retry:  # the first attempt may have succeeded
                self._close_attempts_at(cell)
            self._study.enqueue_trial(parameters, user_attrs=described)
            return self._study.ask(fixed_distributions=distributions)

        self._trials[cell.key] = self._persistence.write(begin)
        self._reported[cell.key] = 0

    def report(self, cell: Cell, epoch: Epoch) -> None:
        """Stores the objective after an epoch, if there is a single objective that is measured per epoch.

        A search reports only cells on its selection images, because Optuna's pruner compares all values of an epoch.
        """
        number = epoch.epoch + 1
        objective, *others = self.objectives
        if self._selects and cell.split is Split.TEST:
            return
        if others or objective not in EPOCH_METRICS or number <= self._reported[cell.key]:
            return
        if (value := getattr(epoch, objective)) is None:
            return
        self._persistence.write(lambda _: self._trials[cell.key].report(float(value), number))
        self._reported[cell.key] = number

    def should_prune(self, cell: Cell, pruner: MedianPruner) -> bool:
        """Returns whether a pruner stops a cell in training, given all finished cells of the study."""
        self._study.pruner = pruner
        return self._persistence.read(self._trials[cell.key].should_prune)

    def finish(self, cell: Cell, outcome: dict[str, Any]) -> None:
        """Stores the final outcome of a cell in training.

        Its `result` is `Result.to_dict()`, or for a pruned cell its epochs, with the reason in `pruned`. It may have
        further entries.
        """
        self._keep(cell, "outcome", json.dumps(outcome))
        self._tell(self._trials.pop(cell.key).number, outcome)

    def fail(self, cell: Cell, kind: str, reason: str) -> None:
        """Stores the failure of a cell in training: its kind (`training.events`) and the reason."""
        self._keep(cell, "failure", {"kind": kind, "reason": hide_passwords(reason)})
        self._tell(self._trials.pop(cell.key).number, None)

    def interrupt(self, cell: Cell) -> None:
        """Ends the attempt at a cell in training without a result; a later run trains it again."""
        self._tell(self._trials.pop(cell.key).number, None)

    def _all_trials(self) -> list[FrozenTrial]:
        with without_collecting_garbage():  # half of the time for 10,000 trials
            return self._persistence.read(lambda: self._study.get_trials(deepcopy=False))

    def _keep(self, cell: Cell, name: str, value: Any) -> None:
        try:
            self._persistence.write(lambda _: self._trials[cell.key].set_user_attr(name, value))
        except optuna.exceptions.UpdateFinishedTrialError:
            reason = "has a cell finished by another process meanwhile; that one's outcome stays"
            raise StudyInUseError("study", self.name, reason) from None

    def _tell(self, number: int, outcome: Mapping[str, Any] | None) -> None:
        """Ends a trial: with an outcome as finished or pruned, without one as failed."""
        values = None
        if outcome is not None and "pruned" not in outcome:
            values = [outcome["result"][objective] for objective in self.objectives]
        state = None if values else TrialState.FAIL if outcome is None else TrialState.PRUNED
        self._persistence.write(lambda again: self._study.tell(number, values, state=state, skip_if_finished=again))

    def _close_attempts_at(self, cell: Cell) -> None:
        self._close_waiting()
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs["cell"] == cell.key:
                self._study.tell(trial.number, state=TrialState.FAIL)

    def _close_waiting(self) -> None:
        """Fails waiting trials, because `ask` in `start` would return them first, for another cell."""
        while self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._study.tell(self._study.ask(), state=TrialState.FAIL)


def open_store(
    url: str,
    study: str,
    *,
    create: bool,
    directions: Sequence[str] = ("maximize",),
    advice: str = NOT_RUN,
    guard: Callable[[], None] | None = None,
    notify: Callable[[str], None] = print,
) -> StudyStore:
    """Opens a study in the database at `url`.

    Args:
        url: SQLAlchemy's form, as `sqlite:///results/optuna.db`.
        create: whether to create database and study if they do not exist.
        directions: of the objectives of a new study.
        advice: ends the message if the study does not exist and `create` is False.
        guard: called before each write; raises if another process may write the study.
        notify: shows the user that the database does not respond and is retried.

    Raises:
        StorageError: if the database does not respond, or the study does not exist and `create` is False.
    """
    file = database_file(url)
    if file is not None and is_empty(file) and (file.with_name(study) / "report.md").exists():
        reason = "is empty, but contained the results of a study; restore a backup, or delete it to start a new study"
        raise StorageError("storage", hide_passwords(url), reason)
    if not create and study not in (names := study_names(url)):
        reason = f"no such study in {hide_passwords(url)}; {advice}"
        raise StorageError("study", study, reason, names)

    if create and file is not None and not file.exists():
        with suppress(OSError):  # SQLite reports the reason
            file.touch()  # with default permissions, which may include a group; SQLite's are narrower

    def opened(storage: RDBStorage) -> optuna.Study:
        sampler = RandomSampler()
        if not create:
            return optuna.load_study(storage=storage, sampler=sampler, study_name=study)
        ways = [StudyDirection[direction.upper()] for direction in directions]
        return optuna.create_study(
            storage=storage, sampler=sampler, study_name=study, directions=ways, load_if_exists=True
        )

    return StudyStore(reached(url, opened), Persistence(url, guard, notify))


def find_study(url: str, study: str) -> StudyStore | None:
    """Opens an existing study; returns None if there is none of this name or it is empty; creates nothing."""
    if study not in study_names(url):
        return None
    store = open_store(url, study, create=False)
    return None if store.is_empty and not store.cells() else store


def _networks(design: Design) -> dict[str, Any]:
    return as_stored({variant.name: variant.network for variant in design.variants})


def _mismatch(study: str, reason: str, differences: Sequence[str]) -> StudyMismatchError:
    lines = "".join(f"\n  {line}" for line in differences)
    return StudyMismatchError("study", study, f"{reason}. What differs:{lines}")
