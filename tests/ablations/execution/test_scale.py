"""Requests to the stores, and memory, for a study with a thousand cells; times are not asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine

from ablations.analysis.load import analyze_stored, load_configured
from ablations.analysis.study import ENDS
from ablations.config.compose import compose_config
from ablations.reporting.text.scope import shown_sentence
from ablations.storage.paths import study_folder
from ablations.storage.study import StudyStore, open_store
from ablations.tracking.destination import Destination
from ablations.tracking.tracker import Tracker
from tests.builders.big_studies import BigStudy, make_big_study

MANY_VARIANTS = "sweep.factors.attention={groups:[1,2,4,8],gate_bias:[0.2,0.4,0.6,0.8,1.0,1.2,1.4,1.6,1.8,2.0]}"
MOST_MIB = 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("big")


@pytest.fixture(scope="module")
def study(folder: Path) -> BigStudy:
    """A study with a thousand finished and mirrored cells."""
    return make_big_study(folder, "replicates=200")


def opened(study: BigStudy, folder: Path) -> StudyStore:
    return open_store(f"sqlite:///{folder / 'optuna.db'}", study.design.study, create=False)


def test_finished_cells_are_read_once(study: BigStudy, folder: Path) -> None:
    statements: list[str] = []

    def seen(*executed: Any) -> None:
        if executed[2].startswith("SELECT"):
            statements.append(executed[2])

    event.listen(Engine, "before_cursor_execute", seen)
    try:
        store = opened(study, folder)
        assert len(store.cells()) == 1000
        # Several hundred per query.
        assert 1 <= len([text for text in statements if "trial_user_attributes" in text]) <= 4
        statements.clear()
        store.cells()
        assert [text for text in statements if "trial_user_attributes" in text] == []
        assert len(statements) <= 2
    finally:
        event.remove(Engine, "before_cursor_execute", seen)


def test_finished_runs_of_a_complete_mirror_are_not_read(
    study: BigStudy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    search = MlflowClient.search_runs

    def counted(self: MlflowClient, *arguments: object, **options: object) -> object:
        page = search(self, *arguments, **options)
        seen.append(len(page))
        return page

    monkeypatch.setattr(MlflowClient, "search_runs", counted)
    store = opened(study, folder)
    destination = Destination(f"sqlite:///{folder / 'mlflow.db'}", study.design.study, folder / "artifacts")
    tracker = Tracker(destination, study.design, store.id)
    tracker.sync([(cell, outcome) for cell, outcome in study.outcomes if outcome], "fingerprint")
    assert tracker.lost is None
    assert seen == [1, 0]  # the study's run, then unfinished runs


def test_of_very_many_variants_the_best_and_worst_are_shown(tmp_path: Path) -> None:
    study = make_big_study(tmp_path, MANY_VARIANTS, "sweep.factors.attention.shuffle=[true,false]", mirrored=False)
    analysis = load_configured(compose_config(study.overrides))
    assert len(analysis.summaries) > 60
    assert len(analysis.shown) <= 2 * ENDS + 1
    assert "none" in analysis.shown
    assert "Shown: " in shown_sentence(analysis)
    assert analyze_stored(
        analysis.config, analysis.design, opened(study, tmp_path), study_folder(analysis.config)
    ).shown


@pytest.mark.parametrize("verb", ["run", "analyze"])
def test_a_thousand_finished_cells_fit_into_memory(study: BigStudy, verb: str) -> None:
    script = (
        "import re, runpy, sys\n"
        "try: runpy.run_module(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        # Not by getrusage, which includes the parent process.
        "print('peak', int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024)"
    )
    start = f"import sys; sys.argv = ['ablations.{verb}', *sys.argv[1:]]\n"
    done = subprocess.run(
        [sys.executable, "-c", start + script, *study.overrides], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) <= MOST_MIB
