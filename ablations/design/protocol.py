"""The protocol: all options that must be equal for two cells to be comparable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.common import resolve
from ablations.common.errors import UsageError
from ablations.common.settings import Settings, flatten
from ablations.config import (
    AUTO,
    DATA,
    OWN_GRAPHS,
    REPLICATE,
    SELECTION_SHARE,
    Config,
    DigitsConfig,
    StoredConfig,
    TrainConfig,
    decisive,
    neutral_defaults,
)


def make_protocol(config: Config, stored: Mapping[str, Any] | None) -> Settings:
    """Returns the protocol of a configuration, with `auto` resolved, without neutral options at their defaults.

    Arguments and exceptions are those of `make_design`.
    """
    if config.data.cutout >= config.data.side:
        raise UsageError(
            "data.cutout", config.data.cutout, f"must be less than the image size of {config.data.side} pixels"
        )
    data = _checked_data(config)
    check_recipe(config.train)
    images = getattr(config.data, "train_images", None)  # unknown for stored images until they are loaded
    if images is not None and config.train.batch_size > images:
        reason = f"exceeds the number of training images ({images:,})"
        raise UsageError("train.batch_size", config.train.batch_size, reason)
    train = decisive(config.train)
    if stored is None:
        device = resolve.resolve_device(config.device)
        train["precision"] = resolve.resolve_precision(config.train.precision, device)
        train["memory_format"] = resolve.resolve_memory_format(config.train.memory_format, device)
        train["fused"] = resolve.resolve_fused(config.train.fused, device)
        resolve.check_compile(config.train.compile, device)
    else:
        device = stored["device"] if config.device == "auto" else config.device
        for name in ("precision", "memory_format", "fused"):
            train[name] = stored["train"].get(name) if train[name] == "auto" else train[name]
    if config.train.graphs == "on" and device != "cuda":
        raise UsageError("train.graphs", "on", f"requires a CUDA device; the device is {device}")
    return {"data": data, "train": train, "seed": config.seed, "device": device}


def check_recipe(recipe: TrainConfig) -> None:
    """Raises a UsageError if an option of a recipe is set that has no effect with the other options."""
    default = TrainConfig()
    if recipe.optimizer == "adamw" and recipe.momentum != default.momentum:
        raise UsageError("train.momentum", recipe.momentum, "has no effect with train.optimizer=adamw")
    if recipe.graphs == "on" and recipe.compile in OWN_GRAPHS:
        reason = f"cannot be combined with train.compile={recipe.compile}, which uses CUDA graphs itself"
        raise UsageError("train.graphs", "on", reason)
    if recipe.schedule == "cosine" and recipe.warmup not in (0, default.warmup):
        reason = "has no effect with train.schedule=cosine; train.schedule=warmup_cosine has a warm-up"
        raise UsageError("train.warmup", recipe.warmup, reason)


def _checked_data(config: Config) -> Settings:
    """Returns the options of the data set, with the validation share of a search, which affects all of its cells.

    Tuning does not affect the other cells of a study, so its share is only part of the keys of trials.

    Raises:
        UsageError: if an option has no effect, or the validation share or `data.seed` is not valid in this sweep.
    """
    if "randaugment_magnitude" in decisive(config.data) and not config.data.randaugment:
        reason = "has no effect without data.randaugment"
        raise UsageError("data.randaugment_magnitude", config.data.randaugment_magnitude, reason)
    data, share = decisive(config.data), validation_share(config)
    data.pop("validation")
    if config.sweep.sampler == "tpe":
        data["validation"] = share
    if data["seed"] != REPLICATE:
        return data
    if isinstance(config.data, DigitsConfig) and share:
        reason = (
            "is not supported in a search or tuning on digits: each replicate draws its own split of the source "
            "digits, so selection would use test digits; use a number"
        )
        raise UsageError("data.seed", REPLICATE, reason)
    if isinstance(config.data, StoredConfig) and not (config.data.train_per_class or config.data.val_per_class):
        reason = (
            "has no effect: all images of the official split are used; to draw a subset per replicate, set "
            "data.train_per_class or data.val_per_class"
        )
        raise UsageError("data.seed", REPLICATE, reason)
    return data


def validation_share(config: Config) -> float:
    """Returns the share of the training images that a search or tuning selects on; 0 for other studies.

    Raises:
        UsageError: if a share is set without a selection, or is 0 with one.
    """
    share = config.data.validation
    if config.sweep.sampler != "tpe" and not config.tune.trials:
        if share not in (AUTO, 0):
            raise UsageError("data.validation", share, "has no effect without a search or tuning")
        return 0.0
    if share == 0:
        what = "a search" if config.sweep.sampler == "tpe" else "tuning"
        reason = f"leaves no images for selection; {what} requires a value above 0"
        raise UsageError("data.validation", 0, reason)
    return SELECTION_SHARE if share == AUTO else float(share)


def protocol_differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Lists the options that differ between two protocols: `train.epochs: stored 6, requested 3`.

    Neutral options that a protocol omits have their defaults, written as `off` for 0.
    """
    before, after, defaults = flatten(stored), flatten(asked), _omitted_defaults()
    return [
        f"{name}: stored {before.get(name, defaults.get(name, 'nothing'))}, requested "
        f"{after.get(name, defaults.get(name, 'nothing'))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _omitted_defaults() -> dict[str, Any]:
    """Returns the defaults of neutral options, by their dotted names."""
    schemas = [("train", TrainConfig), *(("data", schema) for schema in DATA.values())]
    return {
        f"{group}.{name}": default or "off"
        for group, schema in schemas
        for name, default in neutral_defaults(schema).items()
    }
