"""Declares options with a help text and their valid values, and reads these declarations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from ablations.common.errors import UsageError
from sa_core.attentions.declaration import check_value
from sa_core.errors import OptionError

AUTO = "auto"
# Options whose names on the command line differ from those in Python.
SHOWN_NAMES = {"replicates_max": "replicates.max"}


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
    neutral: bool = False,
    verbs: tuple[str, ...] = (),
    percent: bool = False,
) -> Any:
    """Declares an option of a configuration class.

    Args:
        minimum, above, maximum: range of a number; `above` is exclusive.
        choices: valid values; of a list, those of each entry. A list may be empty only if its default is.
        words: texts that are valid instead of a number.
        local: the option is about this machine (such as a path) and does not affect results: not part of a protocol.
        neutral: the default has no effect, and only other values are part of a protocol: cells that were trained before
            the option was introduced keep their protocol.
        verbs: the verbs with this option; empty means all.
        percent: the value may end with a percent sign.
    """
    metadata = {
        "help": help, "minimum": minimum, "above": above, "maximum": maximum, "choices": choices, "words": words,
        "local": local, "neutral": neutral, "verbs": verbs, "percent": percent,
        "may_be_empty": default == [],
    }  # fmt: skip
    if isinstance(default, (dict, list)):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def group(schema: type[Any], verbs: tuple[str, ...] = ()) -> Any:
    """Declares a group with the options of `schema`; `verbs` as in `option`."""
    return field(default_factory=schema, metadata={"verbs": verbs})


def decisive(config: Any) -> dict[str, Any]:
    """Returns the options that affect results, by name: all except local ones, and neutral ones at their defaults."""
    neutral = neutral_defaults(type(config))
    values = {entry.name: getattr(config, entry.name) for entry in fields(config) if not entry.metadata.get("local")}
    return {name: value for name, value in values.items() if name not in neutral or value != neutral[name]}


def neutral_defaults(schema: type[Any]) -> dict[str, Any]:
    """Returns the defaults of a schema's neutral options, by name."""
    return {entry.name: entry.default for entry in fields(schema) if entry.metadata.get("neutral")}


def is_switch(value: object) -> bool:
    """Returns whether a value may be one of a switch; of numbers, only 0 and 1 may."""
    try:
        return not isinstance(value, (int, float, str)) or float(value) in (0, 1)
    except OverflowError:
        return False
    except ValueError:
        return True  # a word, which OmegaConf may convert to true or false


def options_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yields the dotted name of each option on the command line, its value, and its declaration."""
    for declared in fields(config):
        name, value = prefix + SHOWN_NAMES.get(declared.name, declared.name), getattr(config, declared.name)
        if is_dataclass(value):
            yield from options_of(value, f"{name}.")
        else:
            yield name, value, declared.metadata


def check_ranges(config: Any) -> None:
    """Checks each option against its declaration; raises a UsageError for the first invalid value."""
    for name, value, allowed in options_of(config):
        choices, words = allowed.get("choices"), allowed.get("words")
        if isinstance(value, str) and value == MISSING:
            raise UsageError(name, None, "needs a value")
        if isinstance(value, list) and any(isinstance(entry, (list, dict)) for entry in value):
            raise UsageError(name, value, "contains a nested list or mapping")
        if choices and value == [] and not allowed["may_be_empty"]:
            raise UsageError(name, "[]", "is empty", choices)
        if words and isinstance(value, str):
            if value not in words:
                kind = "an integer" if isinstance(allowed.get("minimum"), int) else "a number"
                raise UsageError(name, value, f"must be {kind} or {' or '.join(map(repr, words))}")
            continue
        for entry in value if choices and isinstance(value, list) else [value]:
            try:
                check_value(name, entry, allowed)
            except OptionError as error:
                words = {"True": True, "False": False}  # what OmegaConf makes of true and false
                typed = words.get(entry, entry) if isinstance(entry, str) else entry
                raise UsageError(name, typed, error.reason, error.choices) from None
