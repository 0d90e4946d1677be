"""The error of an option that cannot be had, in parts that a command line can put into its own words."""

from __future__ import annotations

from collections.abc import Iterable


class OptionError(ValueError):
    """An option has a value that does not do.

    Args:
        option: its name, as `groups`.
        value: what it was given.
        reason: why that does not do, as a clause.
        choices: what would do.
    """

    def __init__(self, option: str, value: object, reason: str, choices: Iterable[object] = ()) -> None:
        self.option, self.value, self.reason = option, value, reason
        self.choices = tuple(str(choice) for choice in choices)
        valid = f"; valid: {', '.join(self.choices)}" if self.choices else ""
        super().__init__(f"{option}={value} {reason}{valid}")


class UnsupportedError(OptionError, RuntimeError):
    """What `fused` was given does not do for what torch is asked for: a tracer, a transform, a second derivative.

    It is a RuntimeError, too, because torch raises those where it cannot trace or differentiate.
    """
