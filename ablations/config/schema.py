"""The whole configuration of a study: one field a group, and the options that are in no group.

The command line, the help text, the validation and the protocol of a study are all read from these classes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ablations.common.sizes import SMALL_SIDE
from ablations.config.attention import AttentionConfig
from ablations.config.bench import BenchConfig
from ablations.config.data import DataConfig
from ablations.config.figures import FIGURES
from ablations.config.launcher import LauncherConfig
from ablations.config.limits import LimitsConfig
from ablations.config.model import ModelConfig
from ablations.config.option import AUTO, group, option
from ablations.config.plan import PlanConfig
from ablations.config.sweep import SweepConfig
from ablations.config.tracking import TrackingConfig
from ablations.config.train import TrainConfig


@dataclass
class Config:
    """One study: a sweep under a protocol."""

    sweep: SweepConfig = group(SweepConfig)
    data: DataConfig = group(DataConfig)
    model: ModelConfig = group(ModelConfig)
    attention: AttentionConfig = group(AttentionConfig)
    train: TrainConfig = group(TrainConfig)
    bench: BenchConfig = group(BenchConfig, verb="bench")
    launcher: LauncherConfig = group(LauncherConfig)
    limits: LimitsConfig = group(LimitsConfig)
    plan: PlanConfig = group(PlanConfig, verb="plan")
    tracking: TrackingConfig = group(TrackingConfig)
    replicates: int | str = option(
        3,
        "Times each variant is trained, each time with other seeds; auto trains more where verdicts are undecided.",
        minimum=1,
        maximum=10_000,
        words=(AUTO,),
    )
    replicates_max: int = option(32, "Most replicates of a variant under replicates=auto.", minimum=2, maximum=10_000)
    seed: int = option(0, "Seed of the replicates' seeds.", minimum=0, maximum=2**63 - 1)
    measure: str = option(
        "quick",
        "Whether each cell's memory and, in a tenth of its time at most, its speed are measured once it is trained.",
        choices=("quick", "off"),
    )
    weights: str = option(
        "first",
        "Whose trained weights are kept in results_dir/<study>/weights: those of each variant's first replicate, which "
        "some figures need, of all cells, or nobody's (off).",
        choices=("first", "all", "off"),
    )
    figures: Any = option(
        "all",
        "Figures that `analyze` draws: all, or all but some as [all,-cams], with tables, page and report; or names, as "
        f"[forest,pareto], these alone. One of: all, {', '.join(FIGURES)}.",
        verb="analyze",
    )
    threads: int | str = option(
        AUTO,
        "Threads that a cell has on the CPU, on which the last digits of its results depend; auto is 1 for images of "
        f"up to {SMALL_SIDE} pixels and all cores for others, and what a study was begun with where it goes on.",
        minimum=1,
        maximum=1024,
        words=(AUTO,),
    )
    retries: int = option(2, "Times that a cell is begun again whose worker went away.", minimum=0, maximum=1000)
    checkpoint_every: float = option(
        60.0,
        "Seconds after which a cell is kept at the end of an epoch, so that one that is cut off goes on from there.",
        minimum=0.0,
        maximum=1e9,
    )
    sync: bool = option(
        False,
        "Whether `analyze` sends MLflow what it has missed of the study, because a server did not answer.",
        verb="analyze",
    )
    device: str = option("auto", "Where to train; auto is a GPU where there is one.", choices=("auto", "cpu", "cuda"))
    study: str = option("", "Name of the study; <sweep>-<data>-<model> where it is empty.")
    storage: str = option("", "URL of Optuna's database; a SQLite file in results_dir where it is empty.")
    results_dir: str = option("results", "Folder of the stores, figures and reports.")


# The options and groups that one verb alone has, by their names on the command line.
OWNERS: dict[str, str] = {declared.name: verb for declared in fields(Config) if (verb := declared.metadata["verb"])}
