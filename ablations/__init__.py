"""The ablation suite for shuffle attention: plans, runs and analyses studies.

On the command line it is `python -m ablations.run sweep=groups`; in Python:

    from ablations import load_study, run_study

    study = run_study("sweep=groups", "replicates=8")   # trains what is missing, writes the report
    study = load_study("sweep=groups", "replicates=8")  # the same later, from what is stored
    study.results.cells                                 # a data frame, one row per cell
    study.contrasts                                     # the verdicts

    comparison = load_comparison("groups-digits-resnet8", "results/reference/groups-digits-resnet8")
    comparison.frame                                    # the contrasts that two stored studies share
    comparison.cells, comparison.options                # differences between their cells and their options

`judge` gives verdicts on any data frame of replicates. Names are imported on first use, so that importing the package
is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablations.analysis.comparison import load_comparison
    from ablations.analysis.load import load_study
    from ablations.analysis.multiverse import load_multiverse
    from ablations.analysis.study import StudyAnalysis
    from ablations.common.errors import SuiteError
    from ablations.execution.forecast import plan_study
    from ablations.execution.multiverse import run_multiverse
    from ablations.execution.runner import run_study
    from ablations.stats import Contrast, Verdict, judge

_HOMES = {
    "Contrast": "ablations.stats",
    "StudyAnalysis": "ablations.analysis.study",
    "SuiteError": "ablations.common.errors",
    "Verdict": "ablations.stats",
    "judge": "ablations.stats",
    "load_comparison": "ablations.analysis.comparison",
    "load_multiverse": "ablations.analysis.multiverse",
    "load_study": "ablations.analysis.load",
    "plan_study": "ablations.execution.forecast",
    "run_multiverse": "ablations.execution.multiverse",
    "run_study": "ablations.execution.runner",
}

__all__ = ["Contrast", "StudyAnalysis", "SuiteError", "Verdict", "judge", "load_multiverse", "load_study", "plan_study"]
__all__ += ["load_comparison", "run_multiverse", "run_study"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ablations' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
