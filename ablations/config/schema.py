"""The whole configuration of a study: a class a group; data sets, attention modules and launchers have their own files.

The command line, the help text, the validation and the protocol of a study are all read from these classes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ablations.common.metrics import JUDGED, OBJECTIVES
from ablations.common.sizes import SMALL_SIDE
from ablations.config.attention import AttentionConfig
from ablations.config.data import DataConfig
from ablations.config.launcher import LauncherConfig
from ablations.config.measure import MeasureConfig
from ablations.config.option import AUTO, group, option
from sa_core.backbones.places import STEMS

# The figures of a study by name, in the order of a report, with what each shows. `classes`, `confusion` and
# `calibration` need kept predictions, the last three trained weights.
FIGURES = {
    "forest": "Every contrast with its confidence interval and verdict",
    "variants": "Top-1 and cost of every variant",
    "effects": "Main effects and interactions of crossed factors",
    "tradeoffs": "What a search tried, and which factors mattered",
    "comparisons": "Contrasts under one recipe, and with each variant at its best",
    "tuning": "Accuracy against the tuning budget, and where the optima lie",
    "pareto": "Top-1 against speed and memory",
    "complexity": "Top-1 against parameters and GFLOPs, beside published results",
    "promise": "What the multiply-adds promise, and what the clock says",
    "learning_curves": "Training loss and top-1 after every epoch",
    "classes": "Accuracy per class, relative to the baseline",
    "confusion": "Confusion matrix of the baseline, and how variants differ",
    "calibration": "Reliability diagram and expected calibration error",
    "gates": "The gates of shuffle attention, by stage and class",
    "subfeatures": "What each group of channels knows by itself",
    "cams": "Where networks look: class activation maps on test images",
}


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
    margin: int | float | str = option(
        AUTO,
        "Equivalence margin: the smallest difference of interest, in the unit of judge.metric; of accuracies, auto is "
        "that of the data set in percentage points: 2 for digits, 0.2 for others.",
        above=0.0,
        maximum=100.0,
        words=(AUTO,),
    )
    sampler: str = option(
        "grid",
        "Which combinations of levels are trained: all of them (grid), or those that Optuna's TPE picks one by one.",
        choices=("grid", "tpe"),
    )
    trials: int = option(
        20,
        "Combinations that the TPE sampler picks; each is trained once, without the validation images (see "
        "data.validation), and selected by its results on these.",
        minimum=1,
        maximum=100_000,
    )
    confirm: int = option(
        3,
        "Best picks of a search that are confirmed, from the Pareto front where there are several objectives: these "
        "and the variants given by name are trained with new replicates on all training images and tested on the test "
        "images, and only this is reported as a result.",
        minimum=1,
        maximum=1000,
    )
    objectives: list[str] = option(
        ["top1"], f"What the TPE sampler looks for, of: {', '.join(OBJECTIVES)}; with one, hopeless cells are pruned."
    )
    max_parameters: int = option(
        0, "Combinations with more parameters are left out by the TPE sampler; 0 is no limit.", minimum=0
    )


@dataclass
class TuneConfig:
    """Equal tuning: each variant gets a recipe of its own, found by as many trials as any other variant's."""

    trials: int = option(
        0,
        "Recipes that are tried for each variant and compared by judge.metric on validation images (see "
        "data.validation); replicates are then trained with the best of them, too. 0 is no tuning.",
        minimum=0,
        maximum=10_000,
    )
    space: dict[str, Any] = option(
        {},
        "Options of the recipe that are tuned, each with a range or a list of values: "
        "{train.learning_rate: [0.05, 0.8], train.batch_size: [16, 32, 64]}. Ranges whose ends differ by a factor of "
        "10 or more are searched on a log scale. Empty: the learning rate from 1/8 to 4 times that of the recipe, and "
        "the weight decay from 1/10 to 10 times.",
    )
    sampler: str = option(
        "qmc",
        "Sampler of Optuna that picks recipes: the same quasi-random points for all variants (qmc), or TPE.",
        choices=("qmc", "tpe"),
    )


@dataclass
class JudgeConfig:
    """What verdicts are about."""

    metric: str = option("top1", "Metric of a cell that variants are compared by.", choices=JUDGED)


@dataclass
class ModelConfig:
    """The backbone."""

    name: str = option("resnet8", "Backbone.")
    stem: str = option(
        "auto",
        "First layers of a torchvision backbone; auto is cifar (no stride, no pooling) for images of up to "
        f"{SMALL_SIDE} pixels.",
        choices=("auto", *STEMS),
    )


@dataclass
class TrainConfig:
    """The recipe: what every cell of a study is trained with."""

    epochs: int = option(4, "Passes over the training images.", minimum=1, maximum=100_000)
    batch_size: int = option(32, "Images in a training step.", minimum=2, maximum=65_536)
    learning_rate: float = option(0.3, "Greatest learning rate of the schedule.", minimum=1e-12, maximum=1e3)
    schedule: str = option(
        "onecycle",
        "Learning rate schedule: one-cycle, cosine decay from the first step, or cosine decay after a linear warm-up.",
        choices=("onecycle", "cosine", "warmup_cosine"),
    )
    warmup: float = option(
        0.25,
        "Share of the steps in which onecycle and warmup_cosine raise the rate.",
        minimum=0.0,
        maximum=0.9,
    )
    optimizer: str = option(
        "sgd",
        "Optimizer: SGD with Nesterov momentum, or AdamW (betas 0.9 and 0.999), which needs learning rates of about "
        "0.001.",
        choices=("sgd", "adamw"),
        neutral=True,
    )
    momentum: float = option(0.9, "Nesterov momentum of SGD.", minimum=1e-6, maximum=0.9999)
    weight_decay: float = option(
        5e-4, "Weight decay of the parameters that train.decay selects.", minimum=0.0, maximum=10.0
    )
    decay: str = option(
        "weights",
        "Parameters with weight decay: weights of convolutions and linear layers, or all, including norms, biases and "
        "the gates of shuffle attention, as in the official SA-Net code.",
        choices=("weights", "all"),
        neutral=True,
    )
    label_smoothing: float = option(0.1, "Share of the label given to all classes.", minimum=0.0, maximum=0.999)
    mixup: float = option(
        0.0,
        "Alpha of mixup's Beta distribution (Zhang et al. 2018), 0.2 to 1 as a rule; 0 is off. With train.cutmix, each "
        "batch gets one of the two.",
        minimum=0.0,
        maximum=100.0,
        neutral=True,
    )
    cutmix: float = option(
        0.0,
        "Alpha of CutMix's Beta distribution (Yun et al. 2019), 1 as a rule; 0 is off.",
        minimum=0.0,
        maximum=100.0,
        neutral=True,
    )
    ema: float = option(
        0.0,
        "Decay of an exponential moving average of the weights, such as 0.999; the averaged network is evaluated and "
        "kept. 0 is off.",
        minimum=0.0,
        maximum=0.999999,
        neutral=True,
    )
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
        "Seconds for timing the subjects of a comparison in turns, in each mode; six copies of each are timed in any "
        "case.",
        minimum=0.0,
        maximum=86_400.0,
    )
    margin: float = option(
        5.0,
        "Equivalence margin in percent: the smallest relative difference in time that matters. Verdicts are slower, "
        "faster, the same within this margin, or undecided.",
        above=0.0,
        maximum=100.0,
    )


@dataclass
class LimitsConfig:
    """What ends a cell before its time."""

    seconds: float = option(
        0.0, "Seconds that a cell may take, after which it counts as failed; 0 is no limit.", minimum=0.0, maximum=1e9
    )


@dataclass
class PlanConfig:
    """What `plan` finds out before a study is run."""

    pilot: int = option(
        0,
        "Replicates that are trained first, as the study's first ones, to know how much they differ; 0 takes what is "
        "stored. More replicates than were declared with them make verdicts exploratory; replicates=auto does not.",
        minimum=0,
        maximum=100,
    )
    effect: float = option(
        0.0,
        "Difference that the study is to detect, in the unit of judge.metric; the plan says how many replicates it "
        "takes. 0 is sweep.margin.",
        minimum=0.0,
        maximum=100.0,
    )


@dataclass
class TrackingConfig:
    """Where MLflow keeps what people browse."""

    enabled: bool = option(True, "Whether to mirror the study to MLflow.")
    uri: str = option("", "MLflow tracking URI; a SQLite file in results_dir where it is empty.")


@dataclass
class Config:
    """One study: a sweep under a protocol."""

    sweep: SweepConfig = group(SweepConfig)
    tune: TuneConfig = group(TuneConfig)
    judge: JudgeConfig = group(JudgeConfig)
    data: DataConfig = group(DataConfig)
    model: ModelConfig = group(ModelConfig)
    attention: AttentionConfig = group(AttentionConfig)
    train: TrainConfig = group(TrainConfig)
    bench: BenchConfig = group(BenchConfig, verbs=("bench",))
    measure: MeasureConfig = group(MeasureConfig)
    launcher: LauncherConfig = group(LauncherConfig)
    limits: LimitsConfig = group(LimitsConfig)
    plan: PlanConfig = group(PlanConfig, verbs=("plan",))
    tracking: TrackingConfig = group(TrackingConfig)
    replicates: int | str = option(
        8,
        "Times each variant is trained, each time with other seeds; in a search each variant that is confirmed. auto "
        "trains more where verdicts are undecided.",
        minimum=1,
        maximum=10_000,
        words=(AUTO,),
    )
    replicates_max: int = option(32, "Most replicates of a variant under replicates=auto.", minimum=2, maximum=10_000)
    baseline_replicates: int = option(
        0,
        "Replicates of baselines, where they are to have more than other variants, a multiple of replicates: a "
        "baseline is part of every contrast, so reducing its noise helps all; 0 is as many as replicates.",
        minimum=0,
        maximum=10_000,
    )
    seed: int = option(0, "Seed of the replicates' seeds.", minimum=0, maximum=2**63 - 1)
    weights: str = option(
        "first",
        "Whose trained weights are kept in results_dir/<study>/weights: those of each variant's first replicate, which "
        "some figures need, of all cells, or nobody's (off).",
        choices=("first", "all", "off"),
    )
    predictions: str = option(
        "all",
        "Whether each trained network's predictions on the test images are kept in results_dir/<study>/predictions, "
        "about 17 KB for 10,000 images: per-class accuracy, confusion matrices, calibration and churn come from them.",
        choices=("all", "off"),
    )
    figures: Any = option(
        "all",
        "Figures that `analyze` draws: all, or all but some as [all,-cams], with tables, page and report; or names, as "
        f"[forest,pareto], these alone. One of: all, {', '.join(FIGURES)}.",
        verbs=("analyze",),
    )
    threads: int | str = option(
        AUTO,
        "Threads that a cell has on the CPU, on which the last digits of its results depend; auto is 1 for images of "
        f"up to {SMALL_SIDE} pixels and all cores for others, and what a study was begun with where it goes on.",
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
        False,
        "Whether `analyze` sends MLflow what it has missed of the study, because a server did not answer.",
        verbs=("analyze",),
    )
    degenerate: str = option(
        "refuse",
        "What `run` does when an attention module cannot work as intended, such as a layer norm over one hidden unit, "
        "or a gate that is the same for all images: refuse to start, or warn and train it. `plan` lists such modules.",
        choices=("refuse", "warn"),
    )
    device: str = option("auto", "Where to train; auto is a GPU where there is one.", choices=("auto", "cpu", "cuda"))
    recipes: list[str] = option(
        [],
        "Protocols under which the same question is asked, each the name of a recipe, backbone or data set, or several "
        "joined by +, as [quick,cifar10+resnet20+cifar]: one study per protocol, and a report on where verdicts agree.",
        verbs=("plan", "run", "analyze"),
    )
    study: str = option(
        "",
        "Name of the study; if empty, <sweep>-<data>-<model>, followed by -<recipe> unless that is the default. With "
        "recipes, name of the report; the studies are then <name>-<protocol>.",
    )
    storage: str = option("", "URL of Optuna's database; a SQLite file in results_dir where it is empty.")
    results_dir: str = option("results", "Folder of the stores, figures and reports.")


# The options and groups that some verbs alone have, by their names on the command line.
OWNERS: dict[str, tuple[str, ...]] = {
    declared.name: verbs for declared in fields(Config) if (verbs := declared.metadata["verbs"])
}
