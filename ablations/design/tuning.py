"""Tuning with equal budgets: the tuned options of the recipe, their ranges, and the number of trials.

All variants have the same number of trials, search space, seeds and validation images. Options of the recipe
(`train.*`) can be tuned, except the number of epochs, which is the training budget, and options of the computation
(precision, layout, kernels).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_args, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablations.common.errors import UsageError
from ablations.common.settings import Settings, leaves
from ablations.config import AUTO, Config, TrainConfig, TuneConfig
from ablations.config.messages import type_reason
from ablations.design.protocol import check_recipe
from ablations.design.variants import Variant
from sa_core.attentions.declaration import check_value
from sa_core.errors import OptionError

STARTUP = 4  # random trials of TPE before it models their results

_BUDGET = "is the training budget, which is the same for all variants"
_COMPUTED = "determines how networks are computed, which is the same for all variants"
_FIXED = {"epochs": _BUDGET} | dict.fromkeys(("test_flip", "compile", "precision", "memory_format", "fused"), _COMPUTED)
_LOG = 10.0  # ranges whose ends differ by at least this factor are searched on a log scale
_WIDER = 4.0  # factor by which a range on a log scale is widened
_FORM = "must be a range such as [0.05,0.8] or a list of values such as [sgd,adamw]"
# The default search space relative to the recipe.
_DEFAULT = {"learning_rate": (1 / 8, 4.0), "weight_decay": (1 / 10, 10.0)}


@dataclass(frozen=True)
class Dimension:
    """The valid values of a tuned option: a range, or `choices`.

    Attributes:
        low, high: ends of the range, both included; None with choices.
        is_log: whether the range is searched on a log scale.
        choices: the values; empty for a range.
    """

    low: float | None = None
    high: float | None = None
    is_log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def text(self) -> str:
        """The values as on the command line: `[0.05,0.8]`."""
        return f"[{','.join(map(str, self.choices or self.ends))}]"

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the range; raises ValueError for choices."""
        if self.low is None or self.high is None:
            raise ValueError("choices have no ends")
        return self.low, self.high

    @property
    def is_integer(self) -> bool:
        """Whether values of the range are integers."""
        return isinstance(self.low, int)


@dataclass(frozen=True)
class Tuning:
    """The tuning of each variant of a study.

    Attributes:
        trials: number of trials per variant.
        sampler: `qmc`, the same quasi-random recipes for all variants, or `tpe`.
        space: search space, by dotted names of options such as `train.learning_rate`.
        validation: share of the training images that trials are evaluated on instead of trained on.
    """

    trials: int
    sampler: str
    space: Mapping[str, Dimension]
    validation: float

    @property
    def text(self) -> str:
        """Budget and search space in words: `8 trials (qmc) of train.learning_rate [0.05,0.8]`."""
        space = ", ".join(f"{path} {dimension.text}" for path, dimension in self.space.items())
        return f"{self.trials} trials ({self.sampler}) of {space}"

    @property
    def id(self) -> str:
        """Hash of everything that affects the sampled recipes except their number, 8 hex digits."""
        space = {path: asdict(dimension) for path, dimension in self.space.items()}
        text = json.dumps([self.sampler, space, self.validation])
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def make_tuning(config: Config, validation: float, varied: Collection[str]) -> Tuning | None:
    """Returns the tuning of a configuration; None without tuning.

    `validation` is the share of the training images that is held out, `varied` the options that the sweep varies.

    Raises:
        UsageError: if an option of the space is unknown, cannot be tuned or is varied by the sweep; if a range is
            empty; if the sampler needs more trials; or if the sweep does not support tuning.
    """
    tune = config.tune
    if not tune.trials:
        for name, default in vars(TuneConfig()).items():
            if (value := getattr(tune, name)) != default:
                raise UsageError(f"tune.{name}", value, "has no effect without tune.trials")
        return None
    if config.sweep.sampler == "tpe":
        reason = "is not supported in a search, whose variants are not known in advance"
        raise UsageError("tune.trials", tune.trials, reason)
    if config.replicates == AUTO:
        raise UsageError("replicates", AUTO, "is not supported with tune.trials; use a number")
    least = STARTUP + 1 if tune.sampler == "tpe" else 2
    if tune.trials < least:
        start = f"(its first {STARTUP} trials are random)" if tune.sampler == "tpe" else ""
        raise UsageError("tune.trials", tune.trials, f"tune.sampler={tune.sampler} needs at least {least}{start}")
    space = dict(leaves(tune.space))
    dimensions = {path: _dimension(path, values, varied) for path, values in space.items()} or _default_space(config)
    if not dimensions:
        raise UsageError("tune.space", "{}", "must not be empty")
    _check_effects(config.train, dimensions)
    return Tuning(tune.trials, tune.sampler, dimensions, validation)


def _default_space(config: Config) -> dict[str, Dimension]:
    space = {}
    for name, (low, high) in _DEFAULT.items():
        value = float(getattr(config.train, name))
        if value > 0:
            space[f"train.{name}"] = _range(_rounded(value * low), _rounded(value * high))
    return space


def _dimension(path: str, values: Any, varied: Collection[str]) -> Dimension:
    option = f"tune.space.{path}"
    root, _, name = path.partition(".")
    declared = {entry.name: entry for entry in fields(TrainConfig)}
    if root in ("attention", "model"):
        is_varied = path.removesuffix(".name") in varied
        reason = "is varied by the sweep" if is_varied else "belongs to the network"
        raise UsageError(
            option, values, f"{reason}; only options of the recipe can be tuned, for example train.learning_rate"
        )
    if root != "train" or name not in declared:
        choices = [f"train.{tunable}" for tunable in declared if tunable not in _FIXED]
        raise UsageError(option, None, "unknown option of the recipe", choices, word=path)
    if name in _FIXED:
        raise UsageError(option, values, f"cannot be tuned: it {_FIXED[name]}")
    if not isinstance(values, list):
        raise UsageError(option, values, _FORM)
    if len(values) < 2:
        raise UsageError(option, values, f"needs at least two values; it {_FORM}")
    typed = [_typed(option, name, value, declared[name].metadata) for value in values]
    if len({json.dumps(value) for value in typed}) < len(typed):
        raise UsageError(
            option, values, "is an empty range" if _is_range(name, typed) else "contains a duplicate value"
        )
    if not _is_range(name, typed):
        return Dimension(choices=tuple(typed))
    low, high = typed
    if low > high:
        raise UsageError(option, values, f"is an empty range: the lower end comes first; use [{high:g},{low:g}]")
    return _range(low, high)


def _check_effects(recipe: TrainConfig, dimensions: Mapping[str, Dimension]) -> None:
    """Checks that each tuned option has an effect with some values of the other tuned options."""
    for path, dimension in dimensions.items():
        others = {name: other.choices for name, other in dimensions.items() if other.choices and name != path}
        for value in dimension.choices or dimension.ends:
            refused: list[UsageError] = []
            combinations = [dict(zip(others, chosen, strict=True)) for chosen in itertools.product(*others.values())]
            for chosen in combinations:
                try:
                    check_recipe(with_settings(recipe, chosen | {path: value}))
                except UsageError as error:
                    refused.append(error)
            if len(refused) == len(combinations):
                raise UsageError(f"tune.space.{path}", dimension.text, refused[0].reason)


def _range(low: float, high: float) -> Dimension:
    return Dimension(low, high, is_log=low > 0 and high / low >= _LOG)


def _is_range(name: str, values: list[Any]) -> bool:
    """Returns whether values are the ends of a range: two numbers; more numbers, or words, are choices."""
    hint = get_type_hints(TrainConfig)[name]
    is_number = bool not in (hint, *get_args(hint)) and all(isinstance(value, (int, float)) for value in values)
    return is_number and len(values) == 2


def _typed(option: str, name: str, value: Any, allowed: Mapping[str, Any]) -> Any:
    """Returns a value converted to the declared type of the option, checked against its bounds."""
    recipe = OmegaConf.structured(TrainConfig)
    try:
        recipe[name] = value
        typed = recipe[name]
        if isinstance(typed, str) and typed in (allowed.get("words") or ()):
            return typed
        check_value(name, typed, allowed)
    except OmegaConfBaseException as error:
        raise UsageError(option, value, type_reason(error)) from None
    except OptionError as error:
        raise UsageError(option, value, error.reason, error.choices) from None
    return typed


def _rounded(value: float) -> float:
    """Rounds to three significant digits, so that recipes are easy to type."""
    return float(f"{value:.3g}")


def widened(path: str, dimension: Dimension, edge: int) -> tuple[float, float]:
    """Returns the ends of a range after widening its lower (`edge` -1) or upper end, within the option's bounds.

    The end moves by a factor of 4 on a log scale, otherwise by half of the range.
    """
    declared = next(entry for entry in fields(TrainConfig) if entry.name == path.partition(".")[2]).metadata
    low, high = dimension.ends
    if edge < 0:
        low = low / _WIDER if dimension.is_log else low - (high - low) / 2
        low = max(low, declared.get("minimum", low))
    else:
        high = high * _WIDER if dimension.is_log else high + (high - low) / 2
        high = min(high, declared.get("maximum", high))
    return (int(low), int(high)) if dimension.is_integer else (_rounded(low), _rounded(high))


def recipe_of(recipe: TrainConfig, variant: Variant) -> TrainConfig:
    """Returns the recipe of a variant: the common one with the values tuned for the variant."""
    return with_settings(recipe, variant.recipe)


def with_settings(recipe: TrainConfig, settings: Settings) -> TrainConfig:
    """Returns a copy of a recipe with new values by dotted names, such as `{"train.learning_rate": 0.1}`."""
    return replace(recipe, **{path.partition(".")[2]: value for path, value in settings.items()})
