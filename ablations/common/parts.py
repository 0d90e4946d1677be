"""Parts that are made one by one: a part that cannot be made is left out with its reason, and the others are made."""

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

TRACEBACKS = "tracebacks.txt"  # beside a report that lacks parts

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
    """Makes the parts of a report and collects those that could not be made, in `missing`.

    With `raises`, which suits callers that want one part, errors are raised instead.
    """

    raises: bool = False
    missing: list[Missing] = field(default_factory=list)

    def make(self, name: str, default: _D, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | _D:
        """Returns what `function` returns; if it raises an exception, notes the reason and returns `default`.

        KeyboardInterrupt and its like are raised, and so is BrokenPipeError: nobody reads the output any more.
        """
        try:
            return function(*args, **kwargs)
        except BrokenPipeError:
            raise
        except Exception as error:
            self.add(name, error)
            return default

    def add(self, name: str, error: Exception) -> None:
        """Notes that a part could not be made because of an exception, which is raised with `raises`."""
        if self.raises:
            raise error
        self.leave_out(name, reason_of(error), hide_passwords("".join(traceback.format_exception(error))))

    def leave_out(self, name: str, reason: str, trace: str = "") -> None:
        """Notes that a part could not be made; of several notes of the same name, the first is kept."""
        if not self.raises and all(one.name != name for one in self.missing):
            self.missing.append(Missing(name, reason, trace))

    def write_tracebacks(self, path: Path) -> Path | None:
        """Writes the tracebacks and returns their file; without any, removes the file of an earlier report.

        Returns None if there is nothing to write or the file cannot be written.
        """
        traces = [f"{one.name}\n{'-' * len(one.name)}\n{one.trace}" for one in self.missing if one.trace]
        with suppress(OSError):
            if traces:
                write_whole(path, "\n".join(traces))
                return path
            path.unlink(missing_ok=True)
        return None


RAISE = Parts(raises=True)  # collects nothing, so it can be shared


def reason_of(error: Exception) -> str:
    """Returns why something failed, in one line without secrets: `ValueError: math domain error`."""
    line = str(error) if isinstance(error, SuiteError) else first_line(error)
    kind = type(error).__name__
    return shown(line if isinstance(error, SuiteError) or line == kind else f"{kind}: {line}")
