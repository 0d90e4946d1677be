"""Declares the options of attention modules and checks them one by one and together. Does not import torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sa_core.attentions.findings import Finding
from sa_core.errors import OptionError


def knob(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    known: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    odd: bool = False,
) -> Any:
    """Declares a knob: its help text and valid values; `known` are examples of values of an open set."""
    allowed = {"choices": choices, "known": known, "minimum": minimum, "maximum": maximum, "odd": odd}
    return field(default=default, metadata={"help": help, **allowed})


def check_value(name: str, value: Any, allowed: Mapping[str, Any]) -> None:
    """Checks a value of the right type against the declared constraints of its option; raises OptionError.

    Constraints are `choices`, `minimum`, `above` (exclusive), `maximum` and `odd`; None or empty means no constraint.
    """
    if (choices := allowed.get("choices")) and value not in choices:
        raise OptionError(name, value, "is not a valid choice", choices)
    low, bound, high = allowed.get("minimum"), allowed.get("above"), allowed.get("maximum")
    # The comparisons are negated so that NaN, for which every comparison is false, raises an error.
    if low is not None and not value >= low:
        raise OptionError(name, value, f"must be at least {low}")
    if bound is not None and not value > bound:
        raise OptionError(name, value, f"must be more than {bound:g}")
    if high is not None and not value <= high:
        raise OptionError(name, value, f"must be at most {high}")
    if allowed.get("odd") and value and value % 2 == 0:
        raise OptionError(name, value, f"must be odd{' or 0' if low == 0 else ''}")
    if isinstance(value, float) and not math.isfinite(value):
        raise OptionError(name, value, "must be finite")


_KINDS: Mapping[type, tuple[tuple[type, ...], str]] = {
    int: ((int,), "must be an integer"),
    float: ((int, float), "must be a number"),
    bool: ((bool,), "must be true or false"),
    str: ((str,), "must be a string"),
}


@dataclass(frozen=True)
class Knobs:
    """The options of an attention module, with their defaults. A module without options uses this class."""

    def check(self, channels: int) -> None:
        """Checks that the knobs are valid and fit `channels` channels.

        Raises:
            OptionError: with the knob, the value received, the reason and the valid choices.
        """
        self.check_values()
        for name, reason in self.without_effect().items():
            raise OptionError(name, getattr(self, name), f"has no effect: {reason}")
        self.check_channels(channels)

    def check_values(self) -> None:
        """Checks the type and range of each knob; raises OptionError."""
        for declared in fields(self):
            value, allowed = getattr(self, declared.name), declared.metadata
            kinds, reason = _KINDS[type(declared.default)]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise OptionError(declared.name, value, reason)
            check_value(declared.name, value, allowed)

    def without_effect(self) -> dict[str, str]:
        """Returns the knobs that differ from their default but are idle, with the reasons.

        Two variants that differ only in such a knob would be the same network under two names.
        """
        return {name: reason for name, reason in self.idle().items() if getattr(self, name) != default_of(self, name)}

    def idle(self) -> dict[str, str]:
        """Returns the knobs that have no effect with the values of the other knobs, with the reasons."""
        return {}

    def check_channels(self, channels: int) -> None:
        """Checks the knobs against the width of an insertion point; raises OptionError."""

    def meant_degenerate(self) -> dict[Finding, str]:
        """Returns the findings of `find_degenerate` that are intended with these knobs, with the reasons."""
        return {}

    @classmethod
    def shared_with(cls, other: type[Knobs]) -> set[str]:
        """Returns the knobs that have the same meaning in another module, of which this one is a special case."""
        return {declared.name for declared in fields(other)} if issubclass(cls, other) else set()


def default_of(knobs: Knobs | type[Knobs], name: str) -> Any:
    """Returns a knob's default."""
    return next(declared.default for declared in fields(knobs) if declared.name == name)
