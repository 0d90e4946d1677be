"""Declares every option once, and turns a command line into a checked `Config`."""

from ablations.common.metrics import COSTS, OBJECTIVES
from ablations.config.attention import ATTENTION
from ablations.config.data import (
    DATA,
    REPLICATE,
    SELECTION_SHARE,
    DataConfig,
    DigitsConfig,
    ImageTreeConfig,
    ShiftedConfig,
    StoredConfig,
)
from ablations.config.launcher import LauncherConfig, LocalConfig, RayConfig, SerialConfig
from ablations.config.measure import MeasureConfig
from ablations.config.option import AUTO, SHOWN_NAMES, decisive, is_switch, neutral_defaults
from ablations.config.schema import (
    FIGURES,
    OPTIONS_OF,
    OWN_GRAPHS,
    OWNERS,
    PREDICTED,
    BenchConfig,
    Config,
    JudgeConfig,
    ModelConfig,
    SweepConfig,
    TrainConfig,
    TuneConfig,
    variants_named,
)

__all__ = ["ATTENTION", "AUTO", "COSTS", "DATA", "FIGURES", "OBJECTIVES", "OPTIONS_OF", "OWNERS", "PREDICTED"]
__all__ += [
    "OWN_GRAPHS",
    "REPLICATE",
    "SELECTION_SHARE",
    "SHOWN_NAMES",
    "decisive",
    "is_switch",
    "neutral_defaults",
    "variants_named",
]
__all__ += ["BenchConfig", "Config", "DataConfig", "DigitsConfig", "ImageTreeConfig", "JudgeConfig", "LauncherConfig"]
__all__ += ["LocalConfig", "MeasureConfig", "ModelConfig", "RayConfig", "SerialConfig", "ShiftedConfig", "StoredConfig"]
__all__ += ["SweepConfig", "TrainConfig", "TuneConfig"]
