"""Reads the command line with Hydra's grammar and config groups into a checked `Config`.

Hydra composes the groups (`sweep=groups`, `train=quick`); the remaining overrides are applied one at a time, so that
what is wrong with one is said of that one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablations.common.errors import UsageError
from ablations.common.settings import flatten
from ablations.config.groups import GROUPS, compose_groups, default_choices, group_choices, selection
from ablations.config.messages import interpolation_reason, type_reason
from ablations.config.option import SHOWN_NAMES, check_ranges
from ablations.config.overrides import apply_override, parse_override
from ablations.config.schema import Config
from sa_core.backbones.places import TIMM


def compose_config(arguments: Sequence[str], config_dir: str | None = None) -> Config:
    """Returns the configuration that overrides ask for; `config_dir` has more choices, as `sweep/mine.yaml`.

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
    _check_interpolations(config)
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


def _check_interpolations(config: DictConfig) -> None:
    """Checks that there is something where options take their values from: `${seed}`, `${oc.env:HOME}`."""
    for path, text in _interpolations(OmegaConf.to_container(config, resolve=False)):
        shown_path = SHOWN_NAMES.get(path, path)
        try:
            node = OmegaConf.select(config, path, throw_on_missing=True)
            if OmegaConf.is_config(node):
                OmegaConf.to_container(node, resolve=True)
        except Exception as error:  # whatever a resolver does
            raise UsageError(shown_path, text, interpolation_reason(error)) from None
        if node is None:
            raise UsageError(shown_path, text, "refers to nothing")


def _interpolations(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields the dotted name and the text of what refers to something else."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _interpolations(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _interpolations(value, f"{path}[{number}]")
    elif isinstance(node, str) and "${" in node:
        yield path, node
