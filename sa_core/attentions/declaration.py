"""How the options of an attention module are declared, and checked by themselves and together. Without torch."""

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
    """Declares a knob: one sentence about it, and the values that it may have; `known` are some of an open kind."""
    allowed = {"choices": choices, "known": known, "minimum": minimum, "maximum": maximum, "odd": odd}
    return field(default=default, metadata={"help": help, **allowed})


def check_value(name: str, value: Any, allowed: Mapping[str, Any]) -> None:
    """Checks a value, of the right type, against what was declared of its option; raises OptionError.

    `allowed` has any of `choices`, `minimum`, `above`, `maximum` and `odd`; what is None or empty allows everything.
    """
    if (choices := allowed.get("choices")) and value not in choices:
        raise OptionError(name, value, "is not a valid choice", choices)
    low, bound, high = allowed.get("minimum"), allowed.get("above"), allowed.get("maximum")
    # Written so that nan, which compares as false with everything, is refused.
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
    """The options of an attention module, with their defaults; a module without options has just this."""

    def check(self, channels: int) -> None:
        """Checks that the module can stand on `channels` channels.

        Raises:
            OptionError: naming the knob, the value received, the reason and what would do.
        """
        self.check_values()
        for name, reason in self.without_effect().items():
            raise OptionError(name, getattr(self, name), f"has no effect: {reason}")
        self.check_channels(channels)

    def check_values(self) -> None:
        """Checks each knob by itself; raises as `check` does."""
        for declared in fields(self):
            value, allowed = getattr(self, declared.name), declared.metadata
            kinds, reason = _KINDS[type(declared.default)]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise OptionError(declared.name, value, reason)
            check_value(declared.name, value, allowed)

    def without_effect(self) -> dict[str, str]:
        """Returns the knobs that were set although others leave them nothing to do, each with the reason.

        Two variants that differ in such a knob alone would be the same network under two names.
        """
        return {name: reason for name, reason in self.idle().items() if getattr(self, name) != default_of(self, name)}

    def idle(self) -> dict[str, str]:
        """Returns the knobs that the others leave nothing to do, each with the reason."""
        return {}

    def check_channels(self, channels: int) -> None:
        """Checks the knobs against the width of a place; raises as `check` does."""

    def meant_degenerate(self) -> dict[Finding, str]:
        """Returns the findings of `find_degenerate` that are intended with these knobs, each with the reason."""
        return {}

    @classmethod
    def shared_with(cls, other: type[Knobs]) -> set[str]:
        """Returns the knobs that mean the same in another module, which this one is a kind of."""
        return {declared.name for declared in fields(other)} if issubclass(cls, other) else set()


def default_of(knobs: Knobs | type[Knobs], name: str) -> Any:
    """Returns a knob's default."""
    return next(declared.default for declared in fields(knobs) if declared.name == name)
