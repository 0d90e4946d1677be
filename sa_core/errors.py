"""Errors of options, with their parts as attributes, from which a command line can compose its messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class OptionError(ValueError):
    """An option has an invalid value.

    Args:
        option: name of the option, such as `groups`.
        value: the value received.
        reason: why it is invalid, as a clause.
        choices: valid values.
    """

    def __init__(self, option: str, value: object, reason: str, choices: Iterable[object] = ()) -> None:
        self.option, self.value, self.reason = option, value, reason
        self.choices = tuple(str(choice) for choice in choices)
        valid = f"; valid: {', '.join(self.choices)}" if self.choices else ""
        super().__init__(f"{option}={value} {reason}{valid}")


class UnsupportedError(OptionError, RuntimeError):
    """The value of `fused` does not support the requested tracer, transform or second derivative.

    Also a RuntimeError, which torch raises if it cannot trace or differentiate.
    """


class ShapeError(ValueError):
    """The input of a layer has the wrong rank or number of channels; the message has the expected shape."""


@contextmanager
def needed(package: str, what: str) -> Iterator[None]:
    """Context of the import of an optional package, which only `what` needs.

    Raises:
        ImportError: if the package is not installed; the message has the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        message = f"{what} needs the Python package {package}, which is not installed: pip install {package}"
        raise ImportError(message, name=package) from None
