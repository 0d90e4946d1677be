"""The plan of a benchmark: lists all comparisons, and checks them before anything is run."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from ablations.benchmarking.workloads import BACKWARD, FORWARD, STEP, Candidate, Shape, shapes_of
from ablations.common.errors import UsageError
from ablations.common.resolve import resolve_device, resolve_precision
from ablations.common.settings import Settings
from ablations.common.sizes import SMALL_SIDE
from ablations.common.wording import first_line
from ablations.config import BenchConfig, Config, DigitsConfig, ImageTreeConfig
from ablations.design import Design, make_design
from ablations.design.variants import NO_ATTENTION
from ablations.measure.record import Setting, Subject
from ablations.measure.speed import TWIN
from sa_core.attentions.knobs import ShuffleAttentionKnobs, default_groups
from sa_core.backbones.registry import BACKBONES, find_backbone

COPY, PLAIN = "copy", NO_ATTENTION
MODULE, NETWORK = "module", "network"
# The modes of each kind, by their names in `bench.modes`.
MODES = {MODULE: {"forward": FORWARD, "backward": BACKWARD}, NETWORK: {"forward": FORWARD, "step": STEP}}
_BATCHES = {"cpu": {MODULE: 8, NETWORK: 4}, "cuda": {MODULE: 64, NETWORK: 64}}
LONGEST_REASON = 200  # characters of an error
_SMALLEST = 8  # pixels
_DEFAULT_ALSO = BenchConfig().also  # skipped with a note if the tests are not installed


@dataclass(frozen=True)
class Comparison:
    """Subjects that are timed together in one setting: all networks of a backbone, or all modules on a shape."""

    kind: str
    place: str  # a stage, or a backbone
    model: Settings
    shape: Shape
    batch: int
    precision: str
    layout: str
    compile: str
    candidates: tuple[Candidate, ...]

    @property
    def baseline(self) -> str:
        """The name of the reference."""
        return PLAIN if self.kind == NETWORK else COPY

    @property
    def subjects(self) -> dict[str, Candidate]:
        """All subjects by name, the baseline first."""
        candidates = (Candidate.baseline(self.baseline, self.model), *self.candidates)
        return {candidate.name: candidate for candidate in candidates}

    @property
    def title(self) -> str:
        """A title of one line."""
        place = self.place if self.kind == NETWORK else f"modules on {self.place}"
        return f"{place}, {self.compile}, {self.precision}, {self.layout}"

    def subject(self, name: str) -> Subject:
        """Returns the columns that identify a candidate in a row of results."""
        return Subject(self.kind, name, self.place, *self.shape.of_batch(self.batch))

    def setting(self, mode: str) -> Setting:
        """Returns the columns of the setting in a row of results."""
        return Setting(mode, self.compile, self.precision, self.layout)


@dataclass(frozen=True)
class BenchmarkPlan:
    """The comparisons to measure, and notes on defaults that are not available."""

    device: torch.device
    resolution: int
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]


def make_plan(config: Config) -> BenchmarkPlan:
    """Lists and checks the comparisons of a configuration.

    Raises:
        UsageError: if a variant does not fit its backbone, the device lacks a precision, or a module cannot be built.
    """
    bench = config.bench
    if config.sweep.sampler == "tpe":
        reason = "is a search, whose variants are not known in advance; use a sweep that lists its variants"
        raise UsageError("sweep", config.sweep.name, reason)
    device = torch.device(resolve_device(config.device))
    side = _resolution(config)
    # The design requires a data set: any with images of this size, and enough of them for a batch of any recipe.
    data = DigitsConfig(train_images=65_536, resolution=32) if side <= SMALL_SIDE else ImageTreeConfig(resolution=side)
    design = make_design(replace(config, data=data))
    settings = list(_settings(bench, device.type))
    for variant in design.variants:
        if variant.name in (COPY, TWIN) or (variant.name == PLAIN and not variant.is_plain):
            reason = "is reserved for the reference; choose another name"
            raise UsageError("sweep.variants", variant.name, reason)
    also, notes = _imported_modules(bench, {variant.name for variant in design.variants})
    models = _models(design)
    comparisons: list[Comparison] = []
    for label, model in models.items():
        attended = [variant for variant in design.variants if variant.model == model and not variant.is_plain]
        widths = [point.channels for point in find_backbone(model["name"]).insertion_points()]
        groups = default_groups(ShuffleAttentionKnobs, widths)
        others = [Candidate.of_class(name, module, groups) for name, module in also.items()]
        candidates = (*map(Candidate.of_variant, attended), *others)
        comparisons += [
            Comparison(kind, place, model, shape, _batch(bench, kind, device.type), *setting, candidates)
            for kind, place, shape in _places(bench, label, model, side, f"{label} " if len(models) > 1 else "")
            for setting in settings
            if kind == MODULE or bench.compile_networks or setting[-1] != "compiled"
        ]
    if not comparisons:
        reason = (
            "leaves nothing to measure: modes of modules are forward and backward, modes of networks forward and "
            "step, and compiled networks require bench.compile_networks=true"
        )
        raise UsageError("bench.of", f"[{','.join(bench.of)}]", reason)
    return BenchmarkPlan(device, side, tuple(comparisons), tuple(notes))


def _models(design: Design) -> dict[str, Settings]:
    """Returns the backbones of a design by their labels in tables: the name, with the stem if it is ambiguous."""
    models = list({str(variant.model): variant.model for variant in design.variants}.values())
    names = [model["name"] for model in models]
    return {
        model["name"] if names.count(model["name"]) == 1 else f"{model['name']} {model['stem']} stem": model
        for model in models
    }


def _places(bench: BenchConfig, label: str, model: Settings, side: int, where: str) -> Iterator[tuple[str, str, Shape]]:
    """Yields the comparisons of a backbone: kind, place (label in tables), and shape of the input."""
    wanted = [kind for kind in (MODULE, NETWORK) if f"{kind}s" in bench.of and set(MODES[kind]) & set(bench.modes)]
    if MODULE in wanted:
        try:
            shapes = shapes_of(model, "residual", side)
        except RuntimeError as error:
            reason = f"does not fit {label}: {first_line(error)[:LONGEST_REASON]}"
            raise UsageError("bench.resolution", side, reason) from None
        for shape in shapes:
            yield MODULE, f"{where}{shape.stage}", shape
    if NETWORK in wanted:
        yield NETWORK, label, Shape("", 3, side, side)


def _batch(bench: BenchConfig, kind: str, device: str) -> int:
    configured = bench.module_batch if kind == MODULE else bench.network_batch
    return configured or _BATCHES[device][kind]


def _resolution(config: Config) -> int:
    """Returns the side of the images: the configured one, or that of the data set, or with digits the backbone's."""
    configured = config.bench.resolution
    if configured:
        if configured < _SMALLEST:
            raise UsageError("bench.resolution", configured, f"must be 0 or at least {_SMALLEST}")
        return configured
    if not isinstance(config.data, DigitsConfig):
        return config.data.side
    backbone = BACKBONES.get(config.model.name)
    return 32 if backbone is not None and backbone.family == "cifar_resnet" else 224


def _settings(bench: BenchConfig, device: str) -> Iterator[tuple[str, str, str]]:
    """Yields (precision, layout, compile): the first of each and single deviations from it, or all combinations.

    Raises:
        UsageError: if the device does not support a precision, or CUDA graphs.
    """
    best = resolve_precision("auto", device)
    if "bf16" in bench.precision and best != "bf16":
        what = "this GPU" if device == "cuda" else "this CPU"
        raise UsageError("bench.precision", "bf16", f"is not available: {what} has no instructions for it", ("fp32",))
    precisions = list(dict.fromkeys(best if precision == "auto" else precision for precision in bench.precision))
    layouts = list(dict.fromkeys(bench.layout))
    compiles = [how for how in dict.fromkeys(bench.compile) if how != "captured" or device == "cuda"]
    if not compiles:
        raise UsageError("bench.compile", "captured", "requires a CUDA device", ("eager", "compiled"))
    first = (precisions[0], layouts[0], compiles[0])
    for setting in itertools.product(precisions, layouts, compiles):
        if bench.crossed or sum(value != default for value, default in zip(setting, first, strict=True)) <= 1:
            yield setting


def _imported_modules(bench: BenchConfig, variants: set[str]) -> tuple[dict[str, Callable[..., nn.Module]], list[str]]:
    """Imports third-party attention modules; returns them by name, and notes on skipped ones.

    A class is named by its Python module, such as `official`, or by its whole path if that name is taken.

    Raises:
        UsageError: if a class cannot be imported, or its name is taken.
    """
    modules: dict[str, Callable[..., nn.Module]] = {}
    notes = []
    for path in bench.also:
        try:
            module = _imported(path)
        except Exception as error:  # importing third-party code may raise anything
            if bench.also != _DEFAULT_ALSO:
                reason = f"cannot be imported: {first_line(error)[:LONGEST_REASON]}"
                raise UsageError("bench.also", path, reason) from None
            notes.append(
                f"Skipped: {path} (the official implementation) is part of the tests, which are not installed."
            )
            continue
        taken_names = {COPY, PLAIN, *variants, *modules}
        short = path.partition(":")[0].rpartition(".")[2]
        name = path if short in taken_names else short
        if name in taken_names:
            raise UsageError("bench.also", path, "is a duplicate, or the name of a variant")
        modules[name] = module
    return modules, notes


def _imported(path: str) -> type[nn.Module]:
    package, colon, name = path.partition(":")
    if not (package and colon and name) or package.startswith("."):
        raise ImportError("must have the form package.module:Class")
    module = getattr(importlib.import_module(package), name)
    if not (isinstance(module, type) and issubclass(module, nn.Module)):
        raise ImportError("must be a subclass of torch.nn.Module")
    return module
