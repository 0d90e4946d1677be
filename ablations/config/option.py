"""How an option is declared: with a sentence about it and the values it may have; and what is read from that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from ablations.common.errors import UsageError
from sa_core.attentions.declaration import check_value
from sa_core.errors import OptionError

AUTO = "auto"
# Options whose name on the command line is another one than in Python.
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
    """Declares an option: one sentence about it, and the values it may have; `words` can stand for a number.

    Of a list, `choices` are those of each of its entries, and it has one at least unless its default has none. A
    `local` option says where this machine has something, and decides no result: it is no part of a protocol. A
    `neutral` option changes nothing at its default and is part of a protocol only where it has another value: cells
    that were trained before there was such an option stay what they are. `verbs` are those that have it, where not all
    do. A `percent` option may be written with a percent sign.
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
    """Declares a group of options, those of `schema`; `verbs` as in `option`."""
    return field(default_factory=schema, metadata={"verbs": verbs})


def decisive(config: Any) -> dict[str, Any]:
    """Returns the options that decide results, by name: all but local ones, and neutral ones at their defaults."""
    neutral = neutral_defaults(type(config))
    values = {known.name: getattr(config, known.name) for known in fields(config) if not known.metadata.get("local")}
    return {name: value for name, value in values.items() if name not in neutral or value != neutral[name]}


def neutral_defaults(schema: type[Any]) -> dict[str, Any]:
    """Returns the defaults of a schema's neutral options, by name."""
    return {known.name: known.default for known in fields(schema) if known.metadata.get("neutral")}


def is_switch(value: object) -> bool:
    """Says whether a value can be that of an option that is on or off; another number than 0 and 1 is a slip."""
    try:
        return not isinstance(value, (int, float, str)) or float(value) in (0, 1)
    except OverflowError:
        return False
    except ValueError:
        return True  # a word, which may be one for true or false


def options_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yields the dotted name of each option on the command line, its value, and what is declared of it."""
    for declared in fields(config):
        name, value = prefix + SHOWN_NAMES.get(declared.name, declared.name), getattr(config, declared.name)
        if is_dataclass(value):
            yield from options_of(value, f"{name}.")
        else:
            yield name, value, declared.metadata


def check_ranges(config: Any) -> None:
    """Checks each option against its declared values; raises a UsageError for the first that is out of them."""
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
                raise UsageError(name, entry, error.reason, error.choices) from None
