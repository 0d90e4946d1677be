"""Reads the command line with Hydra's grammar and config groups into a checked `Config`.

Hydra composes the groups (`sweep=groups`, `train=quick`); the remaining overrides are applied one at a time, so that
what is wrong with one is said of that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablations.common.errors import UsageError
from ablations.common.settings import flatten
from ablations.config.groups import GROUPS, compose_groups, default_choices, group_choices, selection
from ablations.config.interpolation import check_interpolations
from ablations.config.messages import type_reason
from ablations.config.option import check_ranges
from ablations.config.overrides import apply_override, parse_override
from ablations.config.schema import Config
from sa_core.backbones.places import TIMM


def compose_config(arguments: Sequence[str], config_dir: str | None = None) -> Config:
    """Returns the configuration that command-line overrides ask for.

    Args:
        arguments: overrides, as `sweep=groups` and `train.epochs=3`.
        config_dir: a folder with more choices, as `sweep/mine.yaml`.

    Raises:
        UsageError: for the first override that is not understood, and for any value out of its range.
    """
    if config_dir is not None and not _is_folder(config_dir):
        raise UsageError("--config-dir", config_dir, "there is no such folder")
    overrides = [parse_override(argument) for argument in arguments]
    choices = group_choices(config_dir)
    selected = default_choices()
    for override in overrides:
        if override.key_or_group in GROUPS:
            selected[override.key_or_group] = selection(override, choices[override.key_or_group], config_dir)
    config = compose_groups(selected, config_dir)
    if selected["model"].startswith(TIMM):
        config.model.name = selected["model"]
    for override in overrides:
        if override.key_or_group not in GROUPS:
            apply_override(config, override)
    config.sweep.name = selected["sweep"]
    check_interpolations(config)
    try:
        result = cast(Config, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        raise UsageError(error.full_key or "configuration", None, type_reason(error)) from None
    replaced = {override.key_or_group for override in overrides}
    if not result.sweep.question or ("sweep.factors" in replaced and "sweep.question" not in replaced):
        # What the sweep's file asks is not what is asked here.
        factors = ", ".join(flatten(result.sweep.factors) or result.sweep.variants)
        result.sweep.question = f"What difference do these make: {factors}?"
    result.study = result.study or _study_name(result)
    check_ranges(result)
    return result


def _study_name(config: Config) -> str:
    parts = [config.sweep.name, config.data.name]
    varied = config.sweep.factors.get("model")
    if not isinstance(varied, list) and "name" not in (varied or ()):
        parts.append(config.model.name.replace("/", "-"))
    return "-".join(parts)


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # of a name that no folder can have
        return False
