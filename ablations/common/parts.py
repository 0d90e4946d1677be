"""Makes the parts of a report independently: a part that fails is left out with its reason."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from ablations.common.errors import SuiteError, shown
from ablations.common.files import write_whole
from ablations.common.urls import hide_passwords
from ablations.common.wording import first_line

TRACEBACKS = "tracebacks.txt"  # beside a report with missing parts

_P = ParamSpec("_P")
_T = TypeVar("_T")
_D = TypeVar("_D")


@dataclass(frozen=True)
class Missing:
    """A part that could not be made: its name, the reason in one line, and the traceback (empty if there is none)."""

    name: str
    reason: str
    trace: str = ""


@dataclass
class Parts:
    """Makes the parts of a report, and collects those that failed in `missing`.

    With `raises`, for callers that need a single part, errors are raised instead.
    """

    raises: bool = False
    missing: list[Missing] = field(default_factory=list)

    def make(self, name: str, default: _D, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | _D:
        """Returns the result of `function`; if it raises an Exception, records the reason and returns `default`.

        BrokenPipeError is raised: the reader of the output has gone.
        """
        try:
            return function(*args, **kwargs)
        except BrokenPipeError:
            raise
        except Exception as error:
            self.add(name, error)
            return default

    def add(self, name: str, error: Exception) -> None:
        """Records that a part failed with an exception; with `raises`, raises it."""
        if self.raises:
            raise error
        self.leave_out(name, reason_of(error), hide_passwords("".join(traceback.format_exception(error))))

    def leave_out(self, name: str, reason: str, trace: str = "") -> None:
        """Records that a part is missing; of several records of the same name, the first is kept."""
        if not self.raises and all(part.name != name for part in self.missing):
            self.missing.append(Missing(name, reason, trace))

    def write_tracebacks(self, path: Path) -> Path | None:
        """Writes the tracebacks and returns their file; without any, removes the file of an earlier report.

        Returns None if there is nothing to write or the file cannot be written.
        """
        traces = [f"{part.name}\n{'-' * len(part.name)}\n{part.trace}" for part in self.missing if part.trace]
        with suppress(OSError):
            if traces:
                write_whole(path, "\n".join(traces))
                return path
            path.unlink(missing_ok=True)
        return None


RAISE = Parts(raises=True)  # has no state, so it can be shared


def reason_of(error: Exception) -> str:
    """Returns the reason of an error in one line without secrets: `ValueError: math domain error`."""
    line = str(error) if isinstance(error, SuiteError) else first_line(error)
    kind = type(error).__name__
    return shown(line if isinstance(error, SuiteError) or line == kind else f"{kind}: {line}")
