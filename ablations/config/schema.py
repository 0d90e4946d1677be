"""Every option of the suite, declared once: its type, its default, what it means and what it may be.

The command line, the help text, the validation and the protocol of a study are all read from these classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from typing import Any, get_type_hints

from omegaconf import MISSING

from ablations.common.errors import UsageError
from sa_core.knobs import ATTENTIONS
from sa_core.places import POSITIONS, STEMS


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
    words: tuple[str, ...] = (),
    local: bool = False,
) -> Any:
    """Declares an option: one sentence about it, and the values it may have; `words` can stand for a number.

    Of a list, `choices` are those of each of its entries, and it has one at least. A `local` option says where this
    machine has something, and decides no result: it is no part of a protocol.
    """
    metadata = {
        "help": help, "minimum": minimum, "above": above, "maximum": maximum, "choices": choices, "words": words,
        "local": local,
    }  # fmt: skip
    if isinstance(default, (dict, list)):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


# Metrics of a cell that a search can look for, with the direction in which each is better.
OBJECTIVES = {
    "top1": "maximize",
    "test_loss": "minimize",
    "train_time_ratio": "minimize",
    "test_time_ratio": "minimize",
    "train_images_per_second": "maximize",
    "test_images_per_second": "maximize",
    "peak_memory_mib": "minimize",
    "parameters": "minimize",
}
# Of these, the ones that are measured, not computed or counted.
COSTS = {name for name in OBJECTIVES if name.endswith(("_ratio", "_per_second", "_mib"))}


# The figures of a study by name, in the order of a report, with what each shows; the last three need trained weights.
FIGURES = {
    "forest": "Every contrast with its confidence interval and verdict",
    "variants": "Top-1 and cost of every variant",
    "effects": "Main effects and interactions of crossed factors",
    "tradeoffs": "What a search tried, and which factors mattered",
    "pareto": "Top-1 against speed and memory",
    "complexity": "Top-1 against parameters and GFLOPs, beside published results",
    "promise": "What the multiply-adds promise, and what the clock says",
    "learning_curves": "Training loss and top-1 after every epoch",
    "gates": "The gates of shuffle attention, by stage and class",
    "subfeatures": "What each group of channels knows by itself",
    "cams": "Where networks look: class activation maps on test images",
}

AUTO = "auto"
# Options whose name on the command line is another one than in Python.
SHOWN_NAMES = {"replicates_max": "replicates.max"}


@dataclass
class SweepConfig:
    """What a study varies, and what it compares with."""

    name: str = option("", "Name of the sweep: that of its file.")
    question: str = option("", "What the sweep answers, in words.")
    factors: dict[str, Any] = option({}, "Levels of each factor, crossed: attention.groups=[1,2,4].")
    variants: dict[str, Any] = option({}, "Further variants by name, each with the settings that make it.")
    baseline: str = option(
        "", "What variants are compared with: a variant's name, or a level, against which all else is equal."
    )
    margin: float = option(
        0.2,
        "Least difference in top-1 that matters, in points: variants that differ by less are equal.",
        above=0.0,
        maximum=100.0,
    )
    sampler: str = option(
        "grid",
        "Which combinations of levels are trained: all of them (grid), or those that Optuna's TPE picks one by one.",
        choices=("grid", "tpe"),
    )
    trials: int = option(20, "Combinations that the TPE sampler picks.", minimum=1, maximum=100_000)
    objectives: list[str] = option(
        ["top1"], f"What the TPE sampler looks for, of: {', '.join(OBJECTIVES)}; with one, hopeless cells are pruned."
    )
    max_parameters: int = option(
        0, "Combinations with more parameters are left out by the TPE sampler; 0 is no limit.", minimum=0
    )


@dataclass
class DataConfig:
    """What every data set has."""

    name: str = MISSING
    flip: bool = option(True, "Whether training images are mirrored, one in two.")
    cutout: int = option(
        0, "Side of the square that is blanked in each training image, in pixels.", minimum=0, maximum=224
    )

    @property
    def side(self) -> int:
        """Height and width of the images that networks see, in pixels."""
        return 32


@dataclass
class ShiftedConfig(DataConfig):
    """Images that are augmented as CIFAR's are: by shifts of a few pixels."""

    crop: int = option(
        4, "Greatest shift of a training image in pixels; the border is reflected.", minimum=0, maximum=16
    )


@dataclass
class DigitsConfig(ShiftedConfig):
    """The embedded data set: real digits on cluttered 32x32 colour scenes."""

    name: str = "digits"
    crop: int = option(
        2, "Greatest shift of a training image in pixels; the border is reflected.", minimum=0, maximum=16
    )
    flip: bool = option(False, "Whether training images are mirrored, one in two.")
    train_images: int = option(2048, "Scenes to train on.", minimum=10, maximum=1_000_000)
    test_images: int = option(
        1000, "Scenes to test on, made from digits that no training scene uses.", minimum=10, maximum=1_000_000
    )
    clutter: int = option(3, "Fragments of other digits in a scene.", minimum=0, maximum=32)
    noise: int = option(12, "Greatest change of a pixel by noise, in grey levels.", minimum=0, maximum=128)
    seed: int = option(0, "Seed of the scenes and of the split of source digits.", minimum=0, maximum=2**32 - 1)


@dataclass
class StoredConfig(DataConfig):
    """Real images, which lie in files."""

    root: str = option("data", "Folder that has the data set, or gets it.", local=True)
    cache: str = option(
        "", "Folder of decoded images, made when needed; ~/.cache/ablations where it is empty.", local=True
    )
    memory: str = option(
        "auto",
        "Where images are kept: on the device they train on, or mapped from disk; auto is device where they fit.",
        choices=("auto", "device", "mapped"),
        local=True,
    )
    train_per_class: int = option(0, "Training images of each class; 0 is all.", minimum=0, maximum=10_000_000)
    val_per_class: int = option(0, "Test images of each class; 0 is all.", minimum=0, maximum=10_000_000)
    seed: int = option(0, "Seed of which images, and which classes, a subset has.", minimum=0, maximum=2**32 - 1)


@dataclass
class Cifar10Config(StoredConfig, ShiftedConfig):
    """CIFAR-10 (Krizhevsky 2009), downloaded where `data.root` has none."""

    name: str = "cifar10"


@dataclass
class Cifar100Config(StoredConfig, ShiftedConfig):
    """CIFAR-100 (Krizhevsky 2009), downloaded where `data.root` has none."""

    name: str = "cifar100"


@dataclass
class ImageTreeConfig(StoredConfig):
    """Any ImageFolder tree: `train/<class>/` and `val/<class>/` with images in them."""

    name: str = "imagenet_subset"
    classes: Any = option(
        0, "Classes: how many (0 is all), a list of their folders, or a file that lists them, one a line."
    )
    resolution: int = option(64, "Side of the images that networks see, in pixels.", minimum=64, maximum=224)
    min_area: float = option(
        0.35, "Smallest share of an image that a random resized crop shows.", minimum=0.01, maximum=1.0
    )
    skip_corrupt: bool = option(False, "Whether images that cannot be decoded are left out.", local=True)

    @property
    def side(self) -> int:
        """Height and width of the images that networks see, in pixels."""
        return self.resolution


@dataclass
class ImagenetteConfig(ImageTreeConfig):
    """Imagenette (fast.ai): ten classes of ImageNet that are easily told apart."""

    name: str = "imagenette"
    root: str = option("data/imagenette2-320", "Folder that has the data set.", local=True)
    resolution: int = option(128, "Side of the images that networks see, in pixels.", minimum=64, maximum=224)


@dataclass
class TinyImagenetConfig(ImageTreeConfig):
    """Tiny ImageNet (CS231n): 200 classes at 64x64 pixels."""

    name: str = "tiny_imagenet"
    root: str = option("data/tiny-imagenet-200", "Folder that has the data set.", local=True)


@dataclass
class ModelConfig:
    """The backbone."""

    name: str = option("resnet8", "Backbone.")
    stem: str = option(
        "auto",
        "First layers of a torchvision backbone; auto is cifar (no stride, no pooling) for images of up to 64 pixels.",
        choices=("auto", *STEMS),
    )


@dataclass
class AttentionConfig:
    """The attention module that stands in the blocks; each module adds its own knobs."""

    name: str = MISSING


@dataclass
class PlacedAttentionConfig(AttentionConfig):
    """An attention module that is somewhere."""

    stages: str = option("all", "Stages that carry attention: all, first, last, or their numbers, as 2+3.")
    position: str = option(
        "residual", "Where in a block: after its last norm, before its paths part, after they join, or beside.",
        choices=POSITIONS,
    )  # fmt: skip


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


@dataclass
class PlanConfig:
    """What `plan` finds out before a study is run."""

    pilot: int = option(
        0,
        "Replicates that are trained first, as the study's first ones, to know how much they differ; 0 takes what is "
        "stored.",
        minimum=0,
        maximum=100,
    )
    effect: float = option(
        0.0,
        "Difference in points that the study is to detect: how many replicates that needs is said; 0 is sweep.margin.",
        minimum=0.0,
        maximum=100.0,
    )


@dataclass
class TrackingConfig:
    """Where MLflow keeps what people browse."""

    enabled: bool = option(True, "Whether to mirror the study to MLflow.")
    uri: str = option("", "MLflow tracking URI; a SQLite file in results_dir where it is empty.")


@dataclass
class LauncherConfig:
    """Who trains the cells."""

    name: str = MISSING


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


@dataclass
class LimitsConfig:
    """What ends a cell before its time."""

    seconds: float = option(
        0.0, "Seconds that a cell may take, after which it counts as failed; 0 is no limit.", minimum=0.0, maximum=1e9
    )


@dataclass
class Config:
    """One study: a sweep under a protocol."""

    sweep: SweepConfig = field(default_factory=SweepConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    bench: BenchConfig = field(default_factory=BenchConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
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
    )
    threads: int | str = option(
        AUTO,
        "Threads that a cell has on the CPU, on which the last digits of its results depend; auto is 1 for images of "
        "up to 64 pixels and all cores for others, and what a study was begun with where it goes on.",
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
        False, "Whether `analyze` sends MLflow what it has missed of the study, because a server did not answer."
    )
    device: str = option("auto", "Where to train; auto is a GPU where there is one.", choices=("auto", "cpu", "cuda"))
    study: str = option("", "Name of the study; <sweep>-<data>-<model> where it is empty.")
    storage: str = option("", "URL of Optuna's database; a SQLite file in results_dir where it is empty.")
    results_dir: str = option("results", "Folder of the stores, figures and reports.")


LAUNCHERS: dict[str, type[LauncherConfig]] = {"serial": SerialConfig, "ray": RayConfig}

DATA: dict[str, type[DataConfig]] = {
    "digits": DigitsConfig,
    "cifar10": Cifar10Config,
    "cifar100": Cifar100Config,
    "imagenet_subset": ImageTreeConfig,
    "imagenette": ImagenetteConfig,
    "tiny_imagenet": TinyImagenetConfig,
}


AUTO_GROUPS = "auto"


def _attention_schema(name: str) -> type[AttentionConfig]:
    """Makes an attention module's knobs, declared in `sa_core`, an option group of the command line."""
    knobs = ATTENTIONS[name]
    hints = get_type_hints(knobs)
    declared: list[Any] = [("name", str, field(default=name))]
    for knob in fields(knobs):
        hint, default, metadata = hints[knob.name], knob.default, {"words": (), **knob.metadata}
        if knob.name == "groups":
            hint, default, metadata["words"] = int | str, AUTO_GROUPS, (AUTO_GROUPS,)
            metadata["help"] += " auto is in the backbone's proportion what 64 is in ResNet-50."
        declared.append((knob.name, hint, field(default=default, metadata=metadata)))
    base = AttentionConfig if name == "none" else PlacedAttentionConfig
    return make_dataclass(f"{knobs.__name__}Config", declared, bases=(base,))


ATTENTION: dict[str, type[AttentionConfig]] = {name: _attention_schema(name) for name in ATTENTIONS}


def decisive(config: Any) -> dict[str, Any]:
    """Returns the options that decide results, by name: all but the local ones."""
    return {
        declared.name: getattr(config, declared.name)
        for declared in fields(config)
        if not declared.metadata.get("local")
    }


def is_switch(value: object) -> bool:
    """Says whether a value can be that of an option that is on or off; another number than 0 and 1 is a slip."""
    try:
        return not isinstance(value, (int, float, str)) or float(value) in (0, 1)
    except OverflowError:
        return False
    except ValueError:
        return True  # a word, which may be one for true or false


def check_ranges(config: Any, path: str = "") -> None:
    """Checks each option against its declared values.

    Raises:
        UsageError: for the first option that is out of them.
    """
    for declared in fields(config):
        name, value = path + SHOWN_NAMES.get(declared.name, declared.name), getattr(config, declared.name)
        if is_dataclass(value):
            check_ranges(value, f"{name}.")
            continue
        allowed = declared.metadata
        if isinstance(value, str) and value == MISSING:
            raise UsageError(name, None, "needs a value")
        if isinstance(value, list) and any(isinstance(entry, (list, dict)) for entry in value):
            raise UsageError(name, value, "has more than one value where one stands")
        if choices := allowed.get("choices"):
            for entry in value if isinstance(value, list) else [value]:
                if entry not in choices:
                    raise UsageError(name, entry, "is not known", choices)
            if value == []:
                raise UsageError(name, "[]", "is empty", choices)
        if (words := allowed.get("words")) and isinstance(value, str):
            if value not in words:
                raise UsageError(name, value, f"is no number; a number is, and so is {' or '.join(words)}")
            continue
        low, high = allowed.get("minimum"), allowed.get("maximum")
        # Written so that nan, which compares as false with everything, is refused.
        if low is not None and not value >= low:
            raise UsageError(name, value, f"must be at least {low}")
        if (bound := allowed.get("above")) is not None and not value > bound:
            raise UsageError(name, value, f"must be more than {bound:g}")
        if high is not None and not value <= high:
            raise UsageError(name, value, f"must be at most {high}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(name, value, "is no finite number")
