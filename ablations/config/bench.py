"""The options of the verb `bench`."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.config.option import option


@dataclass
class BenchConfig:
    """What `bench` measures of a sweep's variants, and how."""

    of: list[str] = option(
        ["modules", "networks"],
        "What is measured: attention modules by themselves on the shapes of each stage, and whole networks.",
        choices=("modules", "networks"),
    )
    modes: list[str] = option(
        ["forward", "backward", "step"],
        "What is timed: forward; forward and backward, of modules; a training step, of networks.",
        choices=("forward", "backward", "step"),
    )
    metrics: list[str] = option(
        ["speed", "memory", "complexity", "energy"],
        "What is measured of each; energy where the GPU counts it.",
        choices=("speed", "memory", "complexity", "energy"),
    )
    compile: list[str] = option(["eager"], "Eager or compiled by torch.compile.", choices=("eager", "compiled"))
    precision: list[str] = option(
        ["fp32"],
        "Precision of autocast; auto is bf16 on a GPU and on a CPU with bf16 instructions, otherwise fp32.",
        choices=("fp32", "bf16", "auto"),
    )
    layout: list[str] = option(["contiguous"], "Memory format.", choices=("contiguous", "channels_last"))
    crossed: bool = option(
        False, "Whether all combinations of these three are measured, or each other entry alone against the first ones."
    )
    compile_networks: bool = option(
        False, "Whether compiled stands for whole networks, too, each of which takes minutes to compile on a CPU."
    )
    also: list[str] = option(
        ["tests.sa_core.official:OfficialShuffleAttention"],
        "Further attention modules, as package.module:Class, made with the channels (and groups, where it takes them).",
    )
    resolution: int = option(
        0,
        "Side of the images in pixels; 0 is that of the data where others than digits are chosen, otherwise 32 for "
        "CIFAR ResNets and 224.",
        minimum=0,
        maximum=1024,
    )
    module_batch: int = option(0, "Images in a batch of modules; 0 is 8 on a CPU and 64 on a GPU.", minimum=0)
    network_batch: int = option(0, "Images in a batch of networks; 0 is 4 on a CPU and 64 on a GPU.", minimum=0)
    seconds: float = option(
        3.0,
        "Seconds for which subjects are timed in turns; three rounds are timed in any case.",
        minimum=0.0,
        maximum=86_400.0,
    )
