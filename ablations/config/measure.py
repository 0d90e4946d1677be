"""The options of measuring what variants cost, and the choices of `measure=`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from ablations.config.option import option


@dataclass
class MeasureConfig:
    """When each variant's time of a step, time of inference and memory are measured, and how precisely."""

    name: str = MISSING
    precision: float = option(
        2.0,
        "Half width of the 95 % confidence interval at which timing of a variant ends, in percent of the plain "
        "network's time, as 2%.",
        minimum=0.0,
        maximum=100.0,
        percent=True,
    )
    margin: float = option(
        5.0,
        "Difference in time, in percent, below which two variants are as fast as each other.",
        above=0.0,
        maximum=100.0,
        percent=True,
    )
    seconds: float = option(
        30.0,
        "Seconds after which timing of training steps, and again of inference, ends for up to eight variants at a "
        "time, however wide the intervals are; six copies of each network are timed in any case.",
        minimum=0.0,
        maximum=86_400.0,
    )


@dataclass
class MeasureOnConfig(MeasureConfig):
    """Before the first cell is trained, by itself, once a study and machine."""

    name: str = "on"


@dataclass
class MeasureOffConfig(MeasureConfig):
    """Not at all."""

    name: str = "off"


@dataclass
class MeasureOnlyConfig(MeasureConfig):
    """Again, of a study that has been run; no cell is trained."""

    name: str = "only"


MEASURE: dict[str, type[MeasureConfig]] = {
    "on": MeasureOnConfig,
    "off": MeasureOffConfig,
    "only": MeasureOnlyConfig,
}
