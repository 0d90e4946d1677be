"""The error of an option that cannot be had, in parts that a command line can put into its own words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


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


class ShapeError(ValueError):
    """A layer was called with a map of the wrong rank or width; the message has the expected shape."""


@contextmanager
def needed(package: str, what: str) -> Iterator[None]:
    """Is put around the import of a package that sa_core has no need of but for `what`.

    Raises:
        ImportError: if it is not installed; the message says what to install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        message = f"{what} needs the Python package {package}, which is not installed: pip install {package}"
        raise ImportError(message, name=package) from None
