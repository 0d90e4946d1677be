"""What options take from other options (`${seed}`) or from the environment (`${oc.env:HOME}`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationValidationError, UnsupportedInterpolationType

from ablations.common.errors import UsageError
from ablations.common.wording import first_line
from ablations.config.messages import REFERENCES, type_reason
from ablations.config.option import SHOWN_NAMES


def check_interpolations(config: DictConfig) -> None:
    """Checks that there is something where options take their values from.

    Raises:
        UsageError: for the first that takes it from nowhere.
    """
    for path, text in _interpolations(OmegaConf.to_container(config, resolve=False)):
        shown_path = SHOWN_NAMES.get(path, path)
        try:
            node = OmegaConf.select(config, path, throw_on_missing=True)
            if OmegaConf.is_config(node):
                OmegaConf.to_container(node, resolve=True)
        except Exception as error:  # whatever a resolver does
            raise UsageError(shown_path, text, _interpolation_reason(error)) from None
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


def _interpolation_reason(error: Exception) -> str:
    first = first_line(error)
    if isinstance(error, InterpolationValidationError):
        return f"what it refers to {type_reason(error)}"
    if isinstance(error, InterpolationKeyError):
        return "refers to an option that there is not"
    if isinstance(error, UnsupportedInterpolationType):
        return REFERENCES
    if "Recursive interpolation" in first or isinstance(error, RecursionError):
        return "refers to itself"
    if found := re.search(r"Environment variable '(.*)' not found", first):
        return f"there is no environment variable {found.group(1)}"
    return "cannot be resolved"
