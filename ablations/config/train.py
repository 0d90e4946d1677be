"""The options of the recipe."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.config.option import option


@dataclass
class TrainConfig:
    """The recipe: what every cell of a study is trained with."""

    epochs: int = option(6, "Passes over the training images.", minimum=1, maximum=100_000)
    batch_size: int = option(32, "Images in a training step.", minimum=2, maximum=65_536)
    learning_rate: float = option(0.3, "Greatest learning rate of the schedule.", minimum=1e-12, maximum=1e3)
    schedule: str = option("onecycle", "Course of the learning rate.", choices=("onecycle", "cosine"))
    warmup: float = option(0.25, "Share of the steps in which a one-cycle schedule rises.", minimum=0.0, maximum=0.9)
    momentum: float = option(0.9, "Nesterov momentum.", minimum=1e-6, maximum=0.9999)
    weight_decay: float = option(
        5e-4, "Weight decay of convolution and linear weights; nothing else decays.", minimum=0.0, maximum=10.0
    )
    label_smoothing: float = option(0.1, "Share of the label given to all classes.", minimum=0.0, maximum=0.999)
    test_flip: bool = option(False, "Whether a test image is judged by the mean of it and its mirror image.")
    compile: str = option(
        "none",
        "Mode of torch.compile for training, none being eager; reduce-overhead replays CUDA graphs on a GPU.",
        choices=("none", "default", "reduce-overhead", "max-autotune"),
    )
    precision: str = option(
        "auto",
        "Precision of autocast; auto is bf16 on a GPU and on a CPU with bf16 instructions, otherwise fp32.",
        choices=("auto", "fp32", "bf16"),
    )
    memory_format: str = option(
        "auto",
        "Layout of the feature maps; auto is channels_last on a GPU, contiguous on a CPU.",
        choices=("auto", "contiguous", "channels_last"),
    )
    fused: str = option(
        "auto",
        "Whether shuffle attention is computed by the kernels of sa_core.fused, in variants that have one; auto is on "
        "where the machine has kernels.",
        choices=("auto", "on", "off"),
    )
