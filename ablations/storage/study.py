"""Optuna as the memory of a study, through its public API: which cells were trained, and what came of them.

An attempt at a cell is one trial, begun when its training begins, with one driver as the only writer; its states are
those of `ablations.storage.cell_states`. Its parameters are what the study varies (`ablations.storage.parameters`),
its value is the objective, its intermediate values are the objective after every epoch, and its user attributes say
which cell it is and, as JSON, what came of it. A driver that was killed leaves a RUNNING trial; the next one finishes
it, if its outcome was stored already, or marks it as interrupted. The outcome is stored before the trial is told, so
no kill loses a finished cell or makes it twice.

A database that goes away is asked again for some minutes (`Persistence`). What was asked of it may have been done
although no answer came, so whatever is tried again looks first, or does no harm twice.
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

NOT_RUN = "create it with `run` and the same options"  # what to do where nothing is stored
FORMAT = 5  # of what is stored; another version's store is refused


class StudyStore:
    """One study in Optuna's database; made by `open_store` or `find_study`.

    Every method raises StorageError where the database fails, or does not answer for minutes.
    """

    def __init__(self, study: optuna.Study, persistence: Persistence) -> None:
        self._study, self._persistence = study, persistence
        self._attributes: dict[str, Any] | None = None
        self._attempts: dict[int, StoredCell] = {}  # by the number of the trial
        self._trials: dict[str, optuna.Trial] = {}  # of the cells in training, by their keys
        self._reported: dict[str, int] = {}  # the last epoch of each of these that Optuna knows

    @property
    def name(self) -> str:
        """The name of the study."""
        return str(self._study.study_name)

    @property
    def attributes(self) -> dict[str, Any]:
        """What the study as a whole remembers; read once, as nobody else writes it meanwhile."""
        if self._attributes is None:
            self._attributes = self._persistence.read(lambda: self._study.user_attrs)
        return self._attributes

    @property
    def is_empty(self) -> bool:
        """Whether nobody has begun the study yet."""
        return "identity" not in self.attributes

    @property
    def format(self) -> int | None:
        """In which format the study is stored; None where nobody has begun it, or another program has."""
        return None if self.is_empty else int(self.attributes["identity"]["version"])

    @property
    def is_foreign(self) -> bool:
        """Whether the study has trials of another program."""
        return any("cell" not in trial.user_attrs for trial in self._all_trials())

    @property
    def id(self) -> str:
        """What tells this study from others of its name, in a store that several people share."""
        return str(self.attributes["identity"]["id"])

    @cached_property
    def objectives(self) -> list[str]:
        """The metrics that the study is about, in the order of the values of its trials; they never change."""
        return list(self.attributes["identity"]["objectives"])

    @cached_property
    def _selects(self) -> bool:
        return "validation" in self.protocol["data"]

    @property
    def protocol(self) -> dict[str, Any]:
        """What all cells of the study share; raises StudyFormatError where it is not this version's study."""
        if self.format != FORMAT:
            raise StudyFormatError(self.name, self.format, FORMAT)
        return dict(self.attributes["identity"]["protocol"])

    @property
    def networks(self) -> dict[str, dict[str, Any]]:
        """The networks that the study compares, those included that no cell was trained of yet, by their names."""
        return dict(self.attributes.get("networks", {}))

    def remember(self, name: str, value: Any) -> None:
        """Keeps a fact about the study as a whole, unless it is known already."""
        if self.attributes.get(name) != value:
            self._persistence.write(lambda _: self._study.set_user_attr(name, value))
            self._attributes = None

    def cells(self) -> list[StoredCell]:
        """Returns the attempt that counts at every cell, in the order in which the cells were first begun.

        Raises StudyFormatError if there are trials of another program.
        """
        for trial in self._all_trials():
            known = self._attempts.get(trial.number)
            if known is None and "cell" not in trial.user_attrs:
                raise StudyFormatError(self.name, None, FORMAT)
            # A waiting trial is one that a driver was about to begin when it was killed.
            if trial.state != TrialState.WAITING and (known is None or known.is_open):
                self._attempts[trial.number] = stored_cell(trial)
        return list(latest_attempts(self._attempts.values()).values())

    def outcomes(self, design: Design) -> list[tuple[Cell, Mapping[str, Any]]]:
        """Returns the finished cells of a design's variants with their outcomes, whatever they are for.

        Those of replicates, too, that the design does not ask for yet, or not any more.
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
        """Makes this the study of `design`, or checks that it is; raises what `check` does."""
        if not self.is_empty:
            self.check(design, f"to start a new study, add study={design.study}-2 (or any name)")
        else:
            self.cells()  # a study of another program is left alone
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
        """Checks that this is the study of `design`.

        Raises:
            StudyMismatchError: if it has another protocol, or other networks under the same names; with `advice`.
            StudyFormatError: if it was written by another version of the suite, or by another program.
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
        """Keeps what a study declares before its first cell, and from then on what it declares otherwise.

        Returns what is otherwise than the last time. `trains` says whether there are cells to be trained: without any,
        fewer replicates than before are those that there are. A study that has cells and declared nothing stays so.
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
        """Returns how many threads all cells of the study are computed with; `default` if it begins with `auto`.

        Raises StorageError if it was begun with another number.
        """
        stored = self.attributes.get("threads")
        asked = threads if isinstance(threads, int) else stored or default
        if stored is not None and stored != asked:
            reason = (
                f"the study was started with threads={stored}, on which results depend in the last digits; to start a "
                f"new study, add study={self.name}-2 (or any name)"
            )
            raise StorageError("threads", asked, reason)
        self.remember("threads", asked)
        return asked

    def take_over(self) -> None:
        """Puts in order what a killed driver left: finishes what has an outcome, closes what has none."""
        self._persistence.write(lambda _: self._close_waiting())
        for cell in self.cells():
            if cell.is_open:
                self._tell(cell.number, cell.outcome)

    def start(self, cell: Cell) -> None:
        """Begins an attempt at a cell; raises StudyInUseError if another process has one that is not at its end."""
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

        def begin(again: bool) -> optuna.Trial:
            if again:  # what was asked for before the database went away may have been done
                self._close_attempts_at(cell)
            self._study.enqueue_trial(parameters, user_attrs=described)
            return self._study.ask(fixed_distributions=distributions)

        self._trials[cell.key] = self._persistence.write(begin)
        self._reported[cell.key] = 0

    def report(self, cell: Cell, epoch: Epoch) -> None:
        """Stores the objective after an epoch, where there is one objective and it is known then.

        In a search that is done of the cells alone that it selects by: Optuna's pruner compares all values of an epoch.
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
        """Asks a pruner, which sees all finished cells of the study, about a cell in training."""
        self._study.pruner = pruner
        return self._persistence.read(self._trials[cell.key].should_prune)

    def finish(self, cell: Cell, outcome: dict[str, Any]) -> None:
        """Stores the outcome of a cell in training, for good.

        The outcome has under `result` what `Result.to_dict` returns, or, of a pruned cell, its epochs; then `pruned`
        says why. Beside it stands what else is worth knowing.
        """
        self._keep(cell, "outcome", json.dumps(outcome))
        self._tell(self._trials.pop(cell.key).number, outcome)

    def fail(self, cell: Cell, kind: str, reason: str) -> None:
        """Stores why a cell in training has no result: the kind of failure (`training.events`) and the reason."""
        self._keep(cell, "failure", {"kind": kind, "reason": hide_passwords(reason)})
        self._tell(self._trials.pop(cell.key).number, None)

    def interrupt(self, cell: Cell) -> None:
        """Ends the attempt at a cell in training without a result; a later run makes another one."""
        self._tell(self._trials.pop(cell.key).number, None)

    def _all_trials(self) -> list[FrozenTrial]:
        with without_collecting_garbage():  # it would take half of the seconds that 10,000 trials take
            return self._persistence.read(lambda: self._study.get_trials(deepcopy=False))

    def _keep(self, cell: Cell, name: str, value: Any) -> None:
        try:
            self._persistence.write(lambda _: self._trials[cell.key].set_user_attr(name, value))
        except optuna.exceptions.UpdateFinishedTrialError:
            reason = "has a cell finished by another process meanwhile; that one's outcome stays"
            raise StudyInUseError("study", self.name, reason) from None

    def _tell(self, number: int, outcome: Mapping[str, Any] | None) -> None:
        """Ends a trial: as finished or pruned with an outcome, as failed without one."""
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
        """Fails trials that wait: Optuna hands them out before any other, and `start` would get another cell's."""
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
        create: whether to make database and study where there are none.
        directions: of the objectives of a study that is made.
        advice: what to do where the study is not there and is not to be made.
        guard: called before each write; raises where another process may write the study.
        notify: tells people that the database does not answer and is asked again.

    Raises:
        StorageError: if the database does not answer, or the study is not there and is not to be made.
    """
    file = database_file(url)
    if file is not None and is_empty(file) and (file.with_name(study) / "report.md").exists():
        reason = "is empty, but contained the results of a study; restore a backup, or delete it to start a new study"
        raise StorageError("storage", hide_passwords(url), reason)
    if not create and study not in (names := study_names(url)):
        reason = f"no such study in {hide_passwords(url)}; {advice}"
        raise StorageError("study", study, reason, names)

    if create and file is not None and not file.exists():
        with suppress(OSError):  # SQLite says why
            file.touch()  # with the permissions of any new file, for a group too; SQLite's are narrower

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
    """Opens a study that somebody has begun; returns None where there is none of this name, and makes nothing."""
    if study not in study_names(url):
        return None
    store = open_store(url, study, create=False)
    return None if store.is_empty and not store.cells() else store


def _networks(design: Design) -> dict[str, Any]:
    return as_stored({variant.name: variant.network for variant in design.variants})


def _mismatch(study: str, reason: str, differences: Sequence[str]) -> StudyMismatchError:
    lines = "".join(f"\n  {line}" for line in differences)
    return StudyMismatchError("study", study, f"{reason}. What differs:{lines}")
