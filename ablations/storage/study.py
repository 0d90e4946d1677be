"""Optuna as the memory of a study: which cells there are, which are finished, and what came of them.

A cell is one trial, and a trial goes this way, with one driver as the only writer:

    enqueue          claim            finish
    ------> WAITING ------> RUNNING ---------> COMPLETE     (never trained again)
               ^               |      prune
               |    release    |-------------> PRUNED       (a search gave it up; never trained again)
               +---------------+      fail
                               |-------------> FAIL         (a later run enqueues the cell again, unless it diverged)

A driver that is interrupted releases its cell. One that was killed leaves a RUNNING trial; the next driver finds it
when it takes over and finishes it, if its outcome was stored already, or releases it. The outcome is stored before the
trial is told, so no kill loses a finished cell or makes it twice.

A database that goes away is asked again for some minutes (`Persistence`). What was asked of it may have been done
although no answer came, so whatever is tried again looks first, or does no harm twice.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from ablations.common.errors import UsageError
from ablations.common.urls import hide_passwords
from ablations.design import Cell, Design, protocol_differences
from ablations.storage.database import check_url, connect_arguments, database_file, engine_url, explain
from ablations.storage.persistence import Persistence
from ablations.training.events import DIVERGED

NOT_RUN = "`run` with the same options makes it"  # what to do where nothing is stored

_CLAIMED = TrialState.RUNNING  # by a driver, which may store an outcome at any time
_SHARED = ("variant", "network", "levels", "clamped")
_AT_A_TIME = 500  # values in a statement; SQLite took 999 for long

_VERSION = 4  # of what is stored; another version's store is refused


@dataclass(frozen=True)
class StoredCell:
    """A cell as the store knows it.

    `levels` are those of the factors that made its variant, `outcome` is there when it is finished (of a pruned cell,
    its epochs alone), `failure` when it failed, and then `failed_as` is the kind of failure (`training.events`).
    """

    key: str
    variant: str
    network: dict[str, Any]
    levels: dict[str, Any]
    replicate: int
    state: TrialState
    number: int
    outcome: Mapping[str, Any] | None
    failure: str | None
    failed_as: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether it needs no training any more: a cell that diverged would do so again."""
        return self.state in (TrialState.COMPLETE, TrialState.PRUNED) or self.has_diverged

    @property
    def has_diverged(self) -> bool:
        """Whether its loss became no number."""
        return self.state == TrialState.FAIL and self.failed_as == DIVERGED


class StoredOutcome(Mapping[str, Any]):
    """An outcome as it is stored, decoded when it is looked at: those of thousands of cells would fill the memory."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __getitem__(self, name: str) -> Any:
        return json.loads(self._text)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(json.loads(self._text))

    def __len__(self) -> int:
        return len(json.loads(self._text))


class StudyStore:
    """One study in Optuna's database; made by `open_store`.

    Whatever it is asked raises UsageError where the database fails, or does not answer for minutes.
    """

    def __init__(self, storage: RDBStorage, study: optuna.Study, persistence: Persistence) -> None:
        self._storage, self._study, self._persistence = storage, study, persistence
        self._numbers: dict[str, int] = {}
        self._read: dict[int, StoredCell] = {}  # by the number of the trial
        self._shared: dict[str, Any] = {}

    @property
    def attributes(self) -> dict[str, Any]:
        """What the study as a whole remembers."""
        return self._persistence.read(lambda: self._study.user_attrs)

    @property
    def is_new(self) -> bool:
        """Whether nobody has begun the study yet."""
        return "identity" not in self.attributes

    @property
    def id(self) -> str:
        """What tells this study from others of its name, in a store that several people share."""
        return str(self.attributes["identity"]["id"])

    @property
    def protocol(self) -> dict[str, Any]:
        """What all cells of the study share.

        Raises:
            UsageError: if another version of the suite wrote the study.
        """
        version = self.attributes.get("identity", {}).get("version")
        if version != _VERSION:
            reason = (
                f"is stored in format {version}; this version of the suite reads format {_VERSION}; another name "
                f"(study={self._study.study_name}-2) or another results_dir starts anew"
            )
            raise UsageError("study", self._study.study_name, reason)
        return dict(self.attributes["identity"]["protocol"])

    def remember(self, name: str, value: Any) -> None:
        """Keeps a fact about the study as a whole, unless it is known already."""
        if self.attributes.get(name) != value:
            self._persistence.write(lambda _: self._study.set_user_attr(name, value))

    def cells(self) -> list[StoredCell]:
        """Returns the latest attempt at every cell, in the order in which they were first enqueued.

        What cannot change any more is read once: of a trial that is finished everything, of another one what it is.
        """
        self._persistence.read(self._read_trials)
        latest = {cell.key: cell for cell in self._read.values()}
        self._numbers = {key: cell.number for key, cell in latest.items()}
        return list(latest.values())

    def outcomes(self, design: Design) -> list[tuple[Cell, Mapping[str, Any]]]:
        """Returns the finished cells of a design with their outcomes.

        Those of replicates, too, that the design does not ask for yet, or not any more.
        """
        stored = {cell.key: cell for cell in self.cells()}
        most = max([design.replicates, *(cell.replicate + 1 for cell in stored.values())])
        known = (
            (cell, stored[cell.key].outcome) for cell in replace(design, replicates=most).cells() if cell.key in stored
        )
        return [(cell, outcome) for cell, outcome in known if outcome is not None]

    def _read_trials(self) -> None:
        """Brings `_read` up to date with the store, in the order of the trials."""
        model = models.TrialModel
        of_study = select(model.trial_id, model.number, model.state).where(model.study_id == self._study._study_id)
        with self._storage.scoped_session() as session:
            trials = session.execute(of_study.order_by(model.number)).all()
            unread = {}
            for trial_id, number, state in trials:
                known = self._read.get(number)
                if known is None or (known.state != state and state != TrialState.WAITING) or state == _CLAIMED:
                    unread[trial_id] = (number, state)
                elif known.state != state:
                    self._read[number] = replace(known, state=state)
            found: dict[int, dict[str, Any]] = {trial_id: {} for trial_id in unread}
            for trial_id, key, text in self._attributes_of(session, unread, len(trials)):
                if trial_id in found:
                    found[trial_id][key] = self._decoded(key, text)
        if any("cell" not in known for known in found.values()):
            raise UsageError("study", self._study.study_name, "is a study of another program; another name is needed")
        order = [number for _, number, _ in trials]
        read = {number: _stored_cell(found[trial_id], number, state) for trial_id, (number, state) in unread.items()}
        known_before = len(self._read)
        self._read |= read
        if known_before and len(self._read) > known_before:
            self._read = {number: self._read[number] for number in order}

    def _attributes_of(
        self, session: Session, trials: Collection[int], of_how_many: int
    ) -> Iterable[tuple[int, str, str]]:
        """Reads the attributes of some trials of the study; of all where they are many, as IN takes a few at a time."""
        model = models.TrialUserAttributeModel
        columns = select(model.trial_id, model.key, model.value_json)
        if len(trials) > of_how_many // 4:
            whole = columns.join(models.TrialModel, models.TrialModel.trial_id == model.trial_id)
            yield from session.execute(whole.where(models.TrialModel.study_id == self._study._study_id))
            return
        wanted = list(trials)
        for start in range(0, len(wanted), _AT_A_TIME):
            some = columns.where(model.trial_id.in_(wanted[start : start + _AT_A_TIME]))
            yield from session.execute(some)

    def _decoded(self, key: str, text: str) -> Any:
        """Decodes an attribute; what cells share, as a variant's network, is one object in memory."""
        if key == "outcome":
            return StoredOutcome(text)
        if key not in _SHARED:
            return json.loads(text)
        if text not in self._shared:
            self._shared[text] = json.loads(text)
        return self._shared[text]

    def begin(self, design: Design) -> None:
        """Makes this the study of `design`, or checks that it is.

        Raises:
            UsageError: if the stored study has another protocol, other networks under the same names, or was written
                by another version of the suite.
        """
        if not self.is_new:
            self.check(design, f"to start another study, add study={design.study}-2 (or any name)")
        else:
            self.cells()  # a study of another program is left alone
            identity = {
                "version": _VERSION,
                "protocol": design.protocol,
                "objectives": design.objectives,
                "id": uuid.uuid4().hex,
            }
            self.remember("identity", identity)
        self.remember("sweep", design.sweep)
        self.remember("question", design.question)
        self.remember("baseline", design.baseline)

    def check(self, design: Design, advice: str) -> None:
        """Checks that this is the study of `design`; raises as `begin` does, with `advice` on what to do."""
        differences = protocol_differences(self.protocol, json.loads(json.dumps(design.protocol)))
        if differences:
            listing = "".join(f"\n  {difference}" for difference in differences)
            reason = f"is stored with another protocol; {advice}. What differs:{listing}"
            raise UsageError("study", design.study, reason)
        stored, asked = ", ".join(self._objectives), ", ".join(design.objectives)
        if stored != asked:
            raise UsageError("study", design.study, f"is stored with the objectives {stored}, not {asked}; {advice}")
        networks = {variant.name: variant.network for variant in design.variants}
        for cell in self.cells():
            if networks.get(cell.variant, cell.network) != cell.network:
                asked_network = json.loads(json.dumps(networks[cell.variant]))
                lines = "".join(f"\n  {line}" for line in protocol_differences(cell.network, asked_network))
                reason = f"holds another network under the name {cell.variant}; {advice}. What differs:{lines}"
                raise UsageError("study", design.study, reason)

    def settle_threads(self, threads: int | str, otherwise: int) -> int:
        """Returns how many threads the study's cells are computed with: from its beginning on, always as many.

        Args:
            threads: what was asked for; `auto` is what the study has, if it has begun.
            otherwise: what `auto` is in a study that begins.

        Raises:
            UsageError: if it was begun with another number.
        """
        stored = self.attributes.get("threads")
        asked = threads if isinstance(threads, int) else stored or otherwise
        if stored is not None and stored != asked:
            reason = (
                f"the study was begun with {stored}, on which the last digits of its results depend; "
                f"to start another study, add study={self._study.study_name}-2 (or any name)"
            )
            raise UsageError("threads", asked, reason)
        self.remember("threads", asked)
        return asked

    def take_over(self) -> None:
        """Puts in order what a killed driver left: finishes what has an outcome, releases what has none."""
        for cell in self.cells():
            if cell.state == TrialState.RUNNING and cell.outcome is not None:
                self._tell(cell.number, cell.outcome)
            elif cell.state == TrialState.RUNNING:
                self._release(cell.number)

    def enqueue(self, cells: Iterable[Cell]) -> None:
        """Adds cells to the queue, all of them or, if the process is killed meanwhile, none.

        Optuna's own way is a transaction a trial, which for 10,000 cells takes minutes on a slow disk.
        """
        described = [
            {
                "cell": cell.key,
                "variant": cell.variant.name,
                "network": cell.variant.network,
                "levels": cell.variant.levels,
                "clamped": cell.variant.clamped,
                "replicate": cell.replicate,
            }
            for cell in cells
        ]
        self._persistence.write(partial(self._add, described))
        self._numbers = {}  # read anew: a failed cell has another trial now

    def _add(self, described: Sequence[dict[str, Any]], again: bool) -> None:
        if again:
            waiting = {cell.key for cell in self.cells() if cell.state == TrialState.WAITING}
            described = [attributes for attributes in described if attributes["cell"] not in waiting]
        if described:
            _add_waiting_trials(self._storage, self._study._study_id, described)

    def claim(self, cell: Cell) -> None:
        """Marks a queued cell as being trained.

        Raises:
            UsageError: if it is in nobody's queue any more: another process writes the study.
        """

        def claim(again: bool) -> bool:
            claimed = self._storage.set_trial_state_values(self._trial_id(number), TrialState.RUNNING)
            return claimed or (again and self._state(number) == TrialState.RUNNING)

        number = self._number(cell)
        if not self._persistence.write(claim):
            raise UsageError(
                "study", self._study.study_name, "is being run by another process; it should be the only one"
            )

    def release(self, cell: Cell) -> None:
        """Puts a claimed cell back into the queue."""
        self._release(self._number(cell))

    def finish(self, cell: Cell, outcome: dict[str, Any]) -> None:
        """Stores a claimed cell's outcome, for good.

        Args:
            cell: the cell.
            outcome: under `result` what `Result.to_dict` returns, or, of a pruned cell, its epochs; then `pruned` says
                why. Beside it what else is worth knowing.
        """
        number = self._number(cell)
        self._keep(number, "outcome", outcome)
        self._tell(number, outcome)

    def fail(self, cell: Cell, kind: str, reason: str) -> None:
        """Stores why a claimed cell could not be trained: the kind of failure (`training.events`) and the reason."""
        number = self._number(cell)
        self._keep(number, "failed_as", kind)
        self._keep(number, "failure", hide_passwords(reason))
        self._end(number, None, TrialState.FAIL)

    def _keep(self, number: int, name: str, value: Any) -> None:
        try:
            self._persistence.write(lambda _: self._storage.set_trial_user_attr(self._trial_id(number), name, value))
        except optuna.exceptions.UpdateFinishedTrialError:
            reason = "has a cell finished by another process meanwhile; that one's outcome stays"
            raise UsageError("study", self._study.study_name, reason) from None

    def _tell(self, number: int, outcome: Mapping[str, Any]) -> None:
        if "pruned" in outcome:
            self._end(number, None, TrialState.PRUNED)
        else:
            self._end(number, [outcome["result"][objective] for objective in self._objectives], None)

    def _end(self, number: int, values: list[float] | None, state: TrialState | None) -> None:
        def end(again: bool) -> None:
            if not (again and self._state(number).is_finished()):
                self._study.tell(number, values, state=state)

        self._persistence.write(end)

    @property
    def _objectives(self) -> list[str]:
        return list(self.attributes["identity"]["objectives"])

    def _number(self, cell: Cell) -> int:
        if cell.key not in self._numbers:
            self.cells()
        return self._numbers[cell.key]

    def _release(self, number: int) -> None:
        self._persistence.write(
            lambda _: self._storage.set_trial_state_values(self._trial_id(number), TrialState.WAITING)
        )

    def _state(self, number: int) -> TrialState:
        return self._storage.get_trial(self._trial_id(number)).state

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)


def open_store(
    url: str,
    study: str,
    *,
    create: bool,
    directions: Sequence[str] = ("maximize",),
    otherwise: str = NOT_RUN,
    guard: Callable[[], None] | None = None,
    say: Callable[[str], None] = print,
) -> StudyStore:
    """Opens a study in the database at `url`.

    Args:
        url: SQLAlchemy's form, as `sqlite:///results/optuna.db`.
        study: its name.
        create: whether to make database and study where there are none.
        directions: of the objectives of a study that is made.
        otherwise: what the message advises where the study is not there and is not to be made.
        guard: called before each write; raises where another process may write the study.
        say: tells people that the database does not answer and is asked again.

    Raises:
        UsageError: if the database does not answer, or the study is not there and is not to be made.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shown = hide_passwords(url)
    nothing = f"nothing is stored under this name in {shown}; {otherwise}"
    try:
        check_url("storage", url)
        if (file := database_file(url)) is not None:
            if not create and not file.is_file():
                raise UsageError("study", study, nothing)
            if file.is_file() and not file.stat().st_size and (file.with_name(study) / "report.md").exists():
                reason = "is empty, and had the results of a study; bring back a copy, or remove it to start anew"
                raise UsageError("storage", shown, reason)
        reached = engine_url(url)
        connect = connect_arguments(reached)
        storage = RDBStorage(reached, engine_kwargs={"connect_args": connect, "pool_pre_ping": True})
        if create:
            ways = [StudyDirection[direction.upper()] for direction in directions]
            made = optuna.create_study(storage=storage, study_name=study, directions=ways, load_if_exists=True)
        else:
            names = optuna.get_all_study_names(storage)
            if study not in names:
                raise UsageError("study", study, nothing, names)
            made = optuna.load_study(storage=storage, study_name=study)
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError, RuntimeError, ValueError) as error:
        raise explain(url, error) from None
    return StudyStore(storage, made, Persistence(url, guard, say))


def is_begun(url: str, study: str) -> bool:
    """Whether a database has a study of this name that somebody has begun; makes nothing.

    Raises:
        UsageError: if the database does not answer.
    """
    try:
        return not open_store(url, study, create=False).is_new
    except UsageError as error:
        if error.option != "study":
            raise
        return False


def _add_waiting_trials(storage: RDBStorage, study_id: int, described: Sequence[dict[str, Any]]) -> None:
    """Adds a waiting trial for each of the attributes that are given, in one transaction."""
    with storage.scoped_session() as session, session.begin():
        models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)  # as Optuna numbers trials
        first = session.query(models.TrialModel).filter(models.TrialModel.study_id == study_id).count()
        trials = [
            {"study_id": study_id, "number": first + index, "state": TrialState.WAITING}
            for index in range(len(described))
        ]
        session.execute(insert(models.TrialModel), trials)
        added = select(models.TrialModel.trial_id, models.TrialModel.number).where(
            models.TrialModel.study_id == study_id, models.TrialModel.number >= first
        )
        attributes = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            for trial_id, number in session.execute(added)
            for key, value in described[number - first].items()
        ]
        session.execute(insert(models.TrialUserAttributeModel), attributes)


def _stored_cell(known: Mapping[str, Any], number: int, state: TrialState) -> StoredCell:
    return StoredCell(
        key=known["cell"],
        variant=known["variant"],
        network=known["network"],
        levels=known.get("levels", {}),
        replicate=known["replicate"],
        state=state,
        number=number,
        outcome=known.get("outcome"),
        failure=known.get("failure"),
        failed_as=known.get("failed_as"),
    )
