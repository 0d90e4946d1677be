"""The configuration of a study, one class per group; data sets, attention modules and launchers have separate files.

Command line, help text, validation and the protocol of a study are all derived from these classes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ablations.common.errors import UsageError, shown
from ablations.common.metrics import JUDGED, OBJECTIVES
from ablations.common.sizes import SMALL_SIDE
from ablations.config.attention import AttentionConfig
from ablations.config.data import DataConfig
from ablations.config.launcher import LauncherConfig
from ablations.config.measure import MeasureConfig
from ablations.config.option import AUTO, group, option
from sa_core.backbones.insertion_points import STEMS

# The figures of a study in the order of the report, with their subjects. The last three need trained weights.
FIGURES = {
    "forest": "Every contrast with its confidence interval and verdict",
    "variants": "Top-1 accuracy and costs of every variant",
    "effects": "Main effects and interactions of crossed factors",
    "interactions": "Interactions of crossed factors, a heat map for each pair",
    "tradeoffs": "Trials of a search and the importance of factors",
    "edf": "Empirical distribution of the trials of a search or of tuning",
    "comparisons": "Contrasts under one common recipe and under each variant's tuned recipe",
    "tuning": "Accuracy against the tuning budget, and positions of the optima",
    "pareto": "Top-1 accuracy against speed and memory",
    "time": "Top-1 accuracy against training time",
    "complexity": "Top-1 accuracy against parameters and GFLOPs, with published results",
    "overhead": "Predicted (multiply-adds) against measured overhead",
    "learning_curves": "Training loss and top-1 accuracy per epoch",
    "classes": "Accuracy per class, relative to the baseline",
    "confusion": "Confusion matrix of the baseline and differences of the variants",
    "calibration": "Reliability diagram and expected calibration error",
    "gates": "Gate values of shuffle attention, by stage and class",
    "subfeatures": "Class information in each group of channels",
    "cams": "Class activation maps on test images",
}

EXPORTS = ("csv", "parquet", "tensorboard", "wandb", "cards")
OWN_GRAPHS = ("reduce-overhead", "max-autotune")  # modes of torch.compile that use CUDA graphs
PREDICTED = ("classes", "confusion", "calibration")  # figures that need kept predictions


def variants_named(against: object) -> list[str]:
    """Returns the variants of `against=`: one, or two that are compared with each other.

    Raises:
        UsageError: for any other value.
    """
    names = [shown(name) for name in (against if isinstance(against, list) else [against])]
    if isinstance(against, dict) or len(names) not in (1, 2) or len(set(names)) < len(names):
        raise UsageError("against", against, "must be one variant, or a list of two different variants")
    return names


@dataclass
class SweepConfig:
    """The factors and variants of a study, and the baseline."""

    name: str = option("", "Name of the sweep (of its file).")
    question: str = option("", "Research question that the sweep answers.")
    factors: dict[str, Any] = option(
        {},
        "Factors with their levels, fully crossed. sweep.factors.attention.groups=[1,2,4] replaces or adds one factor; "
        "sweep.factors={attention: {groups: [2, 4], shuffle: [true, false]}} replaces all, and with + before it adds "
        "several.",
    )
    variants: dict[str, Any] = option(
        {},
        "Additional named variants, each with its settings, as in {none: {attention: none}, max: {attention.pooling: "
        "max}}. sweep.variants.max={attention.pooling: max} adds one.",
    )
    baseline: str = option(
        "",
        "Baseline of the contrasts: the name of a variant, or a level such as shuffle=on, which is compared with "
        "the other levels of its factor, all else being equal.",
    )
    margin: int | float | str = option(
        AUTO,
        "Equivalence margin: smallest difference of interest, in the unit of judge.metric. auto (accuracy metrics "
        "only): 2 percentage points for digits, 0.2 for other data sets; other metrics require a number.",
        above=0.0,
        maximum=100.0,
        words=(AUTO,),
    )
    sampler: str = option(
        "grid",
        "Combinations of levels to train: all (grid), or a search with Optuna's TPE sampler (tpe).",
        choices=("grid", "tpe"),
    )
    trials: int = option(
        20,
        "Search: number of combinations sampled by TPE; each is trained once without the validation images (see "
        "data.validation) and evaluated on them.",
        minimum=1,
        maximum=100_000,
    )
    confirm: int = option(
        3,
        "Search: number of best combinations (from the Pareto front if there are several objectives) that are "
        "confirmed. They and the named variants are trained with new replicates on all training images and evaluated "
        "on the test images; only these results are reported.",
        minimum=1,
        maximum=1000,
    )
    objectives: list[str] = option(
        ["top1"],
        "Search: objectives of the TPE sampler; sweep=search sets three. One or more of: "
        f"{', '.join(OBJECTIVES)}. With a single objective, unpromising cells are pruned.",
    )
    max_parameters: int = option(0, "Search: maximum number of network parameters; 0 means no limit.", minimum=0)


@dataclass
class TuneConfig:
    """Tuning of the recipe for each variant, with the same number of trials for all."""

    trials: int = option(
        0,
        "Number of recipes evaluated for each variant by judge.metric on validation images (see data.validation). "
        "Replicates are then trained with the common recipe and with the best recipe of each variant. 0 disables "
        "tuning.",
        minimum=0,
        maximum=10_000,
    )
    space: dict[str, Any] = option(
        {},
        "Search space of tuning: values for each option of the recipe, for example {train.learning_rate: [0.05, 0.8], "
        "train.batch_size: [16, 32, 64]}. A list of two numbers is a range; a list of three or more numbers, or of "
        "strings, is a set of choices. Ranges whose ends differ by a factor of 10 or more are sampled on a log scale. "
        "Empty means the learning rate from 1/8 to 4 times, and the weight decay from 1/10 to 10 times the recipe's "
        "value.",
    )
    sampler: str = option(
        "qmc",
        "Optuna sampler of recipes: the same quasi-random points for all variants (qmc), or TPE for each variant "
        "(tpe).",
        choices=("qmc", "tpe"),
    )


@dataclass
class JudgeConfig:
    """The metric of verdicts."""

    metric: str = option("top1", "Metric on which variants are compared.", choices=JUDGED)


@dataclass
class ModelConfig:
    """The backbone."""

    name: str = option("resnet8", "Backbone.")
    stem: str = option(
        "auto",
        f"Stem of a torchvision backbone; auto is cifar (no stride, no pooling) for images of up to {SMALL_SIDE} "
        "pixels, imagenet otherwise.",
        choices=("auto", *STEMS),
    )


@dataclass
class TrainConfig:
    """The recipe with which all cells of a study are trained."""

    epochs: int = option(4, "Number of training epochs.", minimum=1, maximum=100_000)
    batch_size: int = option(32, "Training batch size.", minimum=2, maximum=65_536)
    learning_rate: float = option(0.3, "Peak learning rate of the schedule.", minimum=1e-12, maximum=1e3)
    schedule: str = option(
        "onecycle",
        "Learning rate schedule: one-cycle, cosine decay from the first step, or cosine decay after a linear warm-up.",
        choices=("onecycle", "cosine", "warmup_cosine"),
    )
    warmup: float = option(
        0.25,
        "Fraction of the steps in which onecycle and warmup_cosine increase the learning rate.",
        minimum=0.0,
        maximum=0.9,
    )
    optimizer: str = option(
        "sgd",
        "Optimizer: SGD with Nesterov momentum, or AdamW (betas 0.9 and 0.999; use learning rates of about 0.001).",
        choices=("sgd", "adamw"),
        neutral=True,
    )
    momentum: float = option(0.9, "Nesterov momentum (SGD only).", minimum=1e-6, maximum=0.9999)
    weight_decay: float = option(
        5e-4, "Weight decay, applied to the parameters selected by train.decay.", minimum=0.0, maximum=10.0
    )
    decay: str = option(
        "weights",
        "Parameters with weight decay: the weights of convolutions and linear layers (weights), or all parameters, "
        "including norms, biases and the gates of shuffle attention, as in the official SA-Net code (all).",
        choices=("weights", "all"),
        neutral=True,
    )
    label_smoothing: float = option(0.1, "Label smoothing.", minimum=0.0, maximum=0.999)
    mixup: float = option(
        0.0,
        "Mixup alpha (Zhang et al. 2018), usually 0.2 to 1; 0 disables it. Combined with train.cutmix, one of the "
        "two is drawn for each batch.",
        minimum=0.0,
        maximum=100.0,
        neutral=True,
    )
    cutmix: float = option(
        0.0,
        "CutMix alpha (Yun et al. 2019), usually 1; 0 disables it.",
        minimum=0.0,
        maximum=100.0,
        neutral=True,
    )
    ema: float = option(
        0.0,
        "Decay of the exponential moving average (EMA) of the weights, for example 0.999; the averaged network is "
        "evaluated and saved. 0 disables it.",
        minimum=0.0,
        maximum=0.999999,
        neutral=True,
    )
    test_flip: bool = option(False, "Test-time augmentation: average over the horizontal flip.")
    compile: str = option(
        "none",
        "torch.compile mode for training; none trains eagerly, reduce-overhead uses CUDA graphs on a GPU.",
        choices=("none", "default", "reduce-overhead", "max-autotune"),
    )
    graphs: str = option(
        "auto",
        "Capture the training step in a CUDA graph and replay it, which gives the same results. auto does so on a GPU "
        "unless train.compile uses CUDA graphs itself, and trains eagerly if a network cannot be captured; with on, "
        "such a cell fails.",
        choices=("auto", "on", "off"),
        neutral=True,
    )
    precision: str = option(
        "auto",
        "Autocast precision; auto is bf16 on a GPU or a CPU with bf16 instructions, fp32 otherwise.",
        choices=("auto", "fp32", "bf16"),
    )
    memory_format: str = option(
        "auto",
        "Memory format of feature maps; auto is channels_last on a GPU, contiguous on a CPU.",
        choices=("auto", "contiguous", "channels_last"),
    )
    fused: str = option(
        "auto",
        "Use the fused kernels of sa_core.fused for shuffle attention, in variants for which kernels exist; auto uses "
        "them where supported.",
        choices=("auto", "on", "off"),
    )


@dataclass
class BenchConfig:
    """What `bench` measures, and how."""

    of: list[str] = option(
        ["modules", "networks"],
        "Subjects to measure: attention modules in isolation, on the feature map shapes of each stage, and whole "
        "networks.",
        choices=("modules", "networks"),
    )
    modes: list[str] = option(
        ["forward", "backward", "step"],
        "Passes to time: forward, backward (forward and backward pass; modules only), step (training step; networks "
        "only).",
        choices=("forward", "backward", "step"),
    )
    metrics: list[str] = option(
        ["speed", "memory", "complexity", "energy"],
        "Quantities to measure; energy requires a GPU with an energy counter, and is measured for networks only, in "
        "the last mode listed in bench.modes, for 0.5 to 2 seconds each.",
        choices=("speed", "memory", "complexity", "energy"),
    )
    compile: list[str] = option(
        ["eager", "captured"],
        "Execution: eager, captured (as CUDA graphs, without Python launch overhead; omitted on a CPU), or compiled "
        "with torch.compile.",
        choices=("eager", "captured", "compiled"),
    )
    precision: list[str] = option(
        ["fp32"],
        "Autocast precision; auto is bf16 on a GPU or a CPU with bf16 instructions, fp32 otherwise.",
        choices=("fp32", "bf16", "auto"),
    )
    layout: list[str] = option(["contiguous"], "Memory format.", choices=("contiguous", "channels_last"))
    crossed: bool = option(
        False,
        "Measure all combinations of bench.compile, bench.precision and bench.layout instead of varying one option at "
        "a time, with the others at their first value.",
    )
    compile_networks: bool = option(False, "Also compile whole networks, which takes minutes per network on a CPU.")
    also: list[str] = option(
        ["tests.sa_core.official:OfficialShuffleAttention"],
        "Additional attention modules, as package.module:Class; the class is called with the number of channels (and "
        "groups, if it has this parameter). The default, the official implementation, is part of a checkout; elsewhere "
        "it is skipped with a message.",
    )
    resolution: int = option(
        0,
        "Image size in pixels; 0 is that of the data set, or with data=digits 32 for CIFAR ResNets and 224 for other "
        "backbones.",
        minimum=0,
        maximum=1024,
    )
    module_batch: int = option(0, "Batch size for modules; 0 is 8 on a CPU and 64 on a GPU.", minimum=0)
    network_batch: int = option(0, "Batch size for networks; 0 is 4 on a CPU and 64 on a GPU.", minimum=0)
    seconds: float = option(
        3.0,
        "Time limit in seconds for the interleaved timing of each comparison in each mode; at least six copies of "
        "each subject are timed.",
        minimum=0.0,
        maximum=86_400.0,
    )
    margin: float = option(
        5.0,
        "Equivalence margin in percent: smallest relative difference in time that matters. Verdicts are slower, "
        "faster, the same within this margin, or undecided.",
        above=0.0,
        maximum=100.0,
    )


@dataclass
class LimitsConfig:
    """Limits on the training of a cell."""

    seconds: float = option(
        0.0,
        "Time limit of a cell in seconds; a cell that exceeds it fails. 0 means no limit.",
        minimum=0.0,
        maximum=1e9,
    )


@dataclass
class PlanConfig:
    """Pilot study and power analysis of `plan`."""

    pilot: int = option(
        0,
        "Pilot study: number of replicates to train now, as the first replicates of the study, to estimate their "
        "variance; 0 uses the stored ones. Increasing replicates after the pilot makes verdicts exploratory, except "
        "with replicates=auto.",
        minimum=0,
        maximum=100,
    )
    effect: float = option(
        0.0,
        "Effect size for the power analysis, in the unit of judge.metric: the plan gives the number of replicates "
        "needed to detect it. 0 means sweep.margin.",
        minimum=0.0,
        maximum=100.0,
    )


@dataclass
class TrackingConfig:
    """Logging to MLflow."""

    enabled: bool = option(True, "Log the study to MLflow.")
    uri: str = option("", "MLflow tracking URI; empty means MLFLOW_TRACKING_URI, or else a SQLite file in results_dir.")
    experiment: str = option("", "MLflow experiment; empty means MLFLOW_EXPERIMENT_NAME, or else the study name.")
    models: bool = option(
        True, "Log the networks whose weights are kept as MLflow models (stores a second copy of the weights)."
    )
    register: str = option(
        "", "Registered model in MLflow; each kept network becomes a version of it, with its variant's name as alias."
    )


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
        "Number of replicates (training runs with different seeds) of each variant (in a search: of each confirmed "
        "variant). auto adds replicates of undecided variants at interim analyses.",
        minimum=1,
        maximum=10_000,
        words=(AUTO,),
    )
    replicates_max: int = option(
        32, "Maximum number of replicates of a variant with replicates=auto.", minimum=2, maximum=10_000
    )
    baseline_replicates: int = option(
        0,
        "Number of replicates of baselines, a multiple of replicates. A baseline is part of every contrast, so more "
        "replicates of it make all contrasts more precise. 0 means the same as replicates.",
        minimum=0,
        maximum=10_000,
    )
    seed: int = option(
        0, "Base seed, from which the seeds of all replicates are derived.", minimum=0, maximum=2**63 - 1
    )
    reuse: list[str] = option(
        [],
        "Studies of the same database with the same protocol: cells that they have trained with the same network and "
        "seed are copied, with their origin, instead of being trained again. Name only studies trained by code that "
        "gives the same results.",
        verbs=("plan", "run"),
    )
    weights: str = option(
        "first",
        "Trained weights to save in results_dir/<study>/weights: those of the first replicate of each variant "
        "(first), which some figures need, of all cells (all), or none (off).",
        choices=("first", "all", "off"),
    )
    predictions: str = option(
        "all",
        "Save the predictions of each trained network on the test images in results_dir/<study>/predictions (about "
        "17 KB for 10,000 images). Per-class accuracy, confusion matrices, calibration and churn need them.",
        choices=("all", "off"),
    )
    export: list[str] = option(
        [],
        "Formats to export results to, in results_dir/<study>/export: tidy tables of results, epochs and contrasts "
        "(csv, parquet), TensorBoard event files, Weights & Biases offline runs, and a model card for each kept "
        "network (cards), as [csv,cards].",
        choices=EXPORTS,
        verbs=("run", "analyze"),
    )
    figures: Any = option(
        "all",
        "Figures that `analyze` draws: all; all except some, as in [all,-cams]; or a list such as [forest,pareto], "
        f"which draws only these figures, without tables, page and report. Names: {', '.join(FIGURES)}.",
        verbs=("analyze",),
    )
    against: Any = option(
        "",
        f"Variant that {', '.join(PREDICTED)} compare all others with, instead of their baselines. A list of two "
        "variants, as in \"against=['groups=4','groups=2']\", compares the first with the second and omits all others.",
        verbs=("analyze",),
    )
    threads: int | str = option(
        AUTO,
        "CPU threads per cell (results can differ in the last digits between numbers of threads). auto uses the stored "
        f"study's value; for a new study, 1 for images of up to {SMALL_SIDE} pixels and all cores otherwise.",
        minimum=1,
        maximum=1024,
        words=(AUTO,),
    )
    retries: int = option(2, "Maximum number of restarts of a cell whose worker process died.", minimum=0, maximum=1000)
    checkpoint_every: float = option(
        60.0,
        "Checkpoint interval in seconds (checkpoints are written at the end of an epoch); an interrupted cell "
        "resumes from its checkpoint.",
        minimum=0.0,
        maximum=1e9,
    )
    sync: bool = option(
        False,
        "Send results to MLflow that are missing there, for example because the server was down.",
        verbs=("analyze",),
    )
    degenerate: str = option(
        "refuse",
        "Action of `run` for degenerate attention modules, such as a layer norm over one hidden unit or a gate that "
        "is constant over images: refuse to start, or warn and train. `plan` lists such modules.",
        choices=("refuse", "warn"),
    )
    device: str = option("auto", "Training device; auto is a CUDA GPU if available.", choices=("auto", "cpu", "cuda"))
    recipes: list[str] = option(
        [],
        "Protocols to repeat the study under, each a recipe, backbone or data set, or several joined by +, for "
        "example [quick,cifar10+resnet20+cifar]: one study per protocol, and a report on the agreement of verdicts.",
        verbs=("plan", "run", "analyze"),
    )
    study: str = option(
        "",
        "Name of the study; empty means <sweep>-<data>-<model>, followed by -<recipe> unless it is the default "
        "recipe. With recipes, name of the report; the studies are named <name>-<protocol>.",
    )
    storage: str = option("", "Optuna storage URL; empty means a SQLite file in results_dir.")
    results_dir: str = option("results", "Output folder for databases, figures and reports.")


# All options of verbs that have only a few.
OPTIONS_OF = {"compare": ("study", "storage", "results_dir")}
# The verbs of each option or group that not all verbs have.
OWNERS: dict[str, tuple[str, ...]] = {
    declared.name: verbs for declared in fields(Config) if (verbs := declared.metadata["verbs"])
}
