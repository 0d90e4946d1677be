"""A tiny study with given names: composed from a sweep file, with fabricated cells in a real store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from ablations.analysis.load import analyze_stored
from ablations.analysis.study import StudyAnalysis
from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.config.quoting import quoted
from ablations.design import make_design
from ablations.storage.paths import make_folder, storage_url, study_folder
from ablations.storage.study import StudyStore, open_store
from tests.builders.analyses import outcome_of, spread_top1


@dataclass(frozen=True)
class Names:
    """Names chosen by users: of a study, its question, its variants (the first is the baseline), and the classes."""

    study: str
    question: str
    variants: tuple[str, str]
    classes: tuple[str, str]


def configured(names: Names, folder: Path) -> Config:
    """Composes the study from a sweep file; raises UsageError for an invalid name."""
    first, second = names.variants
    variants = {first: {"attention": "none"}, second: {"attention": "se"}}
    sweep = {"question": _literal(names.question), "variants": variants, "baseline": _literal(first)}
    (folder / "conf" / "sweep").mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(sweep, allow_unicode=True, sort_keys=False)
    (folder / "conf" / "sweep" / "mine.yaml").write_text(text, encoding="utf-8")
    typed = ["sweep=mine", "device=cpu", "replicates=1", f"study={quoted(names.study)}"]
    return compose_config([*typed, f"results_dir={quoted(str(folder / 'results'))}"], str(folder / "conf"))


def stored(names: Names, config: Config) -> tuple[StudyStore, StudyAnalysis]:
    """Stores the study with a result for every cell, and loads it; raises UsageError for an invalid name."""
    design, folder, url = make_design(config), study_folder(config), storage_url(config)
    make_folder(folder)
    store = open_store(url, design.study, create=True)
    store.initialise(design)
    store.remember("data", {"classes": list(names.classes), "train": 24, "test": 20})
    store.remember("data_fingerprint", "f00d")
    for number, cell in enumerate(design.cells()):
        store.start(cell)
        outcome = outcome_of(number, cell, spread_top1)
        outcome["result"]["epochs"][0]["finished"] = 1.7e9
        store.finish(cell, outcome)
    reopened = open_store(url, design.study, create=False)
    return reopened, analyze_stored(config, design, reopened, folder)


def _literal(text: str) -> str:
    r"""Escapes `${` in a text, which OmegaConf would interpolate."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
