"""The options of cost measurements, and the choices of `measure=`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from ablations.config.option import option


@dataclass
class MeasureConfig:
    """When and how precisely the costs of variants (training step time, inference time, memory) are measured."""

    name: str = MISSING
    precision: float = option(
        2.0,
        "Target half-width of the 95 % confidence intervals of relative step times, in percent (2 or 2%): timing stops "
        "when all variants have reached it. 0 uses all of measure.seconds.",
        minimum=0.0,
        maximum=100.0,
        percent=True,
    )
    margin: float = option(
        5.0,
        "Equivalence margin in percent (5 or 5%): the smallest relative difference in time that matters.",
        above=0.0,
        maximum=100.0,
        percent=True,
    )
    seconds: float = option(
        30.0,
        "Time limit in seconds for timing up to eight variants together, once for training steps and once for "
        "inference. At least six copies of each network are timed, even if that takes longer.",
        minimum=0.0,
        maximum=86_400.0,
    )


@dataclass
class MeasureOnConfig(MeasureConfig):
    """Measures costs before the first cell is trained, once per study and machine."""

    name: str = "on"


@dataclass
class MeasureOffConfig(MeasureConfig):
    """Skips the measurement."""

    name: str = "off"


@dataclass
class MeasureOnlyConfig(MeasureConfig):
    """Measures the costs of a study with finished cells again, without training."""

    name: str = "only"


MEASURE: dict[str, type[MeasureConfig]] = {
    "on": MeasureOnConfig,
    "off": MeasureOffConfig,
    "only": MeasureOnlyConfig,
}
