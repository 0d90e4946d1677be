"""The options of each launcher, and the launchers by name."""

from __future__ import annotations

from dataclasses import dataclass, fields

from omegaconf import MISSING

from ablations.config.option import option


@dataclass
class LauncherConfig:
    """Who trains the cells."""

    name: str = MISSING


@dataclass
class LocalConfig(LauncherConfig):
    """Worker processes of this machine, several cells at once."""

    name: str = "auto"
    workers: int = option(
        0,
        "Number of cells trained at once; 0 is the number of cores divided by threads, or fewer if memory is short (on "
        "a GPU, also its memory).",
        minimum=0,
        maximum=10_000,
    )


@dataclass
class SerialConfig(LauncherConfig):
    """This process, one cell after the other."""

    name: str = "serial"


@dataclass
class RayConfig(LauncherConfig):
    """Ray (ray.io): several cells at once, on this machine or on those of a cluster."""

    name: str = "ray"
    address: str = option(
        "",
        "Address of a cluster's head, as 10.0.0.1:6379, or auto for the one that this machine is in; empty starts one "
        "for the run, on this machine.",
    )
    workers: int = option(
        0, "Cells that are trained at once, at most; 0 is as many as there is room for.", minimum=0, maximum=10_000
    )
    gpus_per_cell: float = option(
        1.0, "GPUs that a cell takes, or the part of one: 0.25 has four share it; of no effect on CPUs.",
        above=0.0, maximum=64.0,
    )  # fmt: skip


LAUNCHERS: dict[str, type[LauncherConfig]] = {"auto": LocalConfig, "serial": SerialConfig, "ray": RayConfig}


def owners_of(option_name: str) -> list[str]:
    """Returns the names of the launchers that have an option of this name."""
    return [name for name in LAUNCHERS if option_name in options_of_launcher(name)]


def options_of_launcher(name: str) -> list[str]:
    """Returns the names of a launcher's own options."""
    return [declared.name for declared in fields(LAUNCHERS[name]) if declared.name != "name"]
