"""Every option, declared once, one file a group; and what turns a command line into a checked `Config`."""

from ablations.common.metrics import COSTS, OBJECTIVES
from ablations.config.attention import ATTENTION
from ablations.config.bench import BenchConfig
from ablations.config.data import DATA, DataConfig, DigitsConfig, ImageTreeConfig, ShiftedConfig, StoredConfig
from ablations.config.figures import FIGURES
from ablations.config.launcher import LAUNCHERS, LauncherConfig, RayConfig
from ablations.config.model import ModelConfig
from ablations.config.option import AUTO, SHOWN_NAMES, check_ranges, decisive, is_switch
from ablations.config.schema import OWNERS, Config
from ablations.config.sweep import SweepConfig
from ablations.config.train import TrainConfig

__all__ = [
    "ATTENTION",
    "AUTO",
    "COSTS",
    "DATA",
    "FIGURES",
    "LAUNCHERS",
    "OBJECTIVES",
    "OWNERS",
    "SHOWN_NAMES",
    "BenchConfig",
    "Config",
    "DataConfig",
    "DigitsConfig",
    "ImageTreeConfig",
    "LauncherConfig",
    "ModelConfig",
    "RayConfig",
    "ShiftedConfig",
    "StoredConfig",
    "SweepConfig",
    "TrainConfig",
    "check_ranges",
    "decisive",
    "is_switch",
]
