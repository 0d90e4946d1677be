"""The options of each launcher, and the registry of launchers."""

from __future__ import annotations

from dataclasses import dataclass, fields

from omegaconf import MISSING

from ablations.config.option import AUTO, option


@dataclass
class LauncherConfig:
    """The launcher, which trains the cells."""

    name: str = MISSING


@dataclass
class LocalConfig(LauncherConfig):
    """Trains cells in several worker processes on this machine."""

    name: str = "auto"
    workers: int = option(
        0,
        "Number of worker processes; 0 is the number of cores divided by threads, or fewer if main memory is short; on "
        "GPUs it is one per visible GPU, which trains launcher.cells_per_gpu cells in parallel.",
        minimum=0,
        maximum=10_000,
    )
    cells_per_gpu: int | str = option(
        AUTO,
        "Number of cells that a worker process trains in parallel on a GPU, with the same results as one after the "
        "other. auto measures steps per second of 1, 2, 4, ... cells, as far as memory allows, and takes the smallest "
        "number close to the maximum; with more workers than GPUs it is 1. No effect on CPUs.",
        minimum=1,
        maximum=64,
        words=(AUTO,),
    )


@dataclass
class SerialConfig(LauncherConfig):
    """Trains cells sequentially in the main process."""

    name: str = "serial"


@dataclass
class RayConfig(LauncherConfig):
    """Trains cells in parallel with Ray (ray.io), on this machine or on a cluster."""

    name: str = "ray"
    address: str = option(
        "",
        "Address of a Ray cluster's head node, such as 10.0.0.1:6379, or auto for the cluster of this machine; empty "
        "starts a local Ray instance for the run.",
    )
    workers: int = option(
        0,
        "Maximum number of cells trained in parallel; 0 means no limit other than the resources.",
        minimum=0,
        maximum=10_000,
    )
    gpus_per_cell: float = option(
        1.0, "GPUs per cell; fractions share a GPU, for example 0.25 trains four cells on each. No effect on CPUs.",
        above=0.0, maximum=64.0,
    )  # fmt: skip


LAUNCHERS: dict[str, type[LauncherConfig]] = {"auto": LocalConfig, "serial": SerialConfig, "ray": RayConfig}


def owners_of(option_name: str) -> list[str]:
    """Returns the launchers that have an option."""
    return [name for name in LAUNCHERS if option_name in options_of_launcher(name)]


def options_of_launcher(name: str) -> list[str]:
    """Returns the names of a launcher's options."""
    return [declared.name for declared in fields(LAUNCHERS[name]) if declared.name != "name"]
