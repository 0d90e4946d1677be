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
        word: what the choices are to be near to, where it is not the value (or, without one, the option).
    """

    def __init__(
        self, option: str, value: object, reason: str, choices: Iterable[str] = (), word: str | None = None
    ) -> None:
        self.option, self.value, self.reason, self.choices = option, value, reason, tuple(choices)
        self._word = word or str(option if value is None else value)
        super().__init__(self._message())

    def _message(self) -> str:
        subject = self.option if self.value is None else f"{self.option}={self.value}"
        text = f"{subject}: {self.reason}"
        near = nearest(self._word, self.choices)
        if near:
            text += f"; did you mean {' or '.join(near)}?"
        if self.choices and len(self.choices) <= _LISTED:
            text += f"{'' if near else ';'} valid: {', '.join(self.choices)}"
        elif self.choices and not near:
            text += "; --help lists what there is"
        return text


_TYPES = {
    "converted to Integer": "is no whole number",
    "converted to Float": "is no number",
    "is not a valid bool": "is neither true nor false",
    "hint 'Union[int, str]'": "is no whole number",
    "is not Optional": "needs a value",
    "Cannot convert 'list' to string": "is one value, not several",
    "is not a ListConfig": "is given as a list, as [this,that]",
    "is not a subclass of Dict": "is given as settings, as {attention: {groups: [1,2]}}",
    "(int) is incompatible with (str)": "has a name that is a number; quotes around it make it text",
}


def type_reason(error: Exception) -> str:
    """Says in plain words what OmegaConf says of a value of the wrong type; other errors keep their first line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    for known, reason in _TYPES.items():
        if known in lines[0]:
            return reason
    text = lines[0].rstrip(".")
    return text[:1].lower() + text[1:]


def nearest(word: str, choices: Iterable[str]) -> list[str]:
    """Returns up to three of `choices` that look like `word`, the likest first."""
    known = list(choices)
    # `epochs` means `train.epochs`: what ends alike is nearer than what has as many letters in common.
    ends = [choice for choice in known if choice.rpartition(".")[2] == word.rpartition(".")[2]]
    return ends[:3] or difflib.get_close_matches(word, known, n=3, cutoff=0.5)
