"""The errors that are the user's to mend: one message, exit status 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 12  # more choices than this are too many to read


class UsageError(Exception):
    """Something that was asked for cannot be done; the message says what would.

    Args:
        option: what the user named, as `train.epochs`.
        value: what it was given, None where it was given nothing.
        reason: why that does not do, as a clause.
        choices: what would do; the nearest come first in the message.
    """

    def __init__(self, option: str, value: object, reason: str, choices: Iterable[str] = ()) -> None:
        self.option, self.value, self.reason, self.choices = option, value, reason, tuple(choices)
        super().__init__(self._message())

    def _message(self) -> str:
        subject = self.option if self.value is None else f"{self.option}={self.value}"
        text = f"{subject}: {self.reason}"
        near = nearest(self.option if self.value is None else str(self.value), self.choices)
        if near:
            text += f"; did you mean {' or '.join(near)}?"
        if self.choices and len(self.choices) <= _LISTED:
            text += f"{'' if near else ';'} valid: {', '.join(self.choices)}"
        elif self.choices and not near:
            text += "; --help lists what there is"
        return text


def nearest(word: str, choices: Iterable[str]) -> list[str]:
    """Returns up to three of `choices` that look like `word`, the likest first."""
    known = list(choices)
    # `epochs` means `train.epochs`: what ends alike is nearer than what has as many letters in common.
    ends = [choice for choice in known if choice.rpartition(".")[2] == word.rpartition(".")[2]]
    return ends[:3] or difflib.get_close_matches(word, known, n=3, cutoff=0.5)
