"""The errors that are the user's to mend: one message, exit status 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from ablations.common.urls import hide_passwords

_LISTED = 12  # more choices than this are too many to read
_LONGEST = 300  # characters of a value that are repeated
_LONGEST_NAME = 100  # longer ones are no misspellings, and looking for what is near them takes seconds


class SuiteError(Exception):
    """Something cannot be done for a reason that the user can mend; the message says what would do.

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

    def within(self, place: str) -> SuiteError:
        """Returns the error as one of a part of what was asked for: the reason begins with the name of the part."""
        return type(self)(self.option, self.value, f"{place}: {self.reason}", self.choices, self._word)

    def _message(self) -> str:
        subject = shown(str(self.option)) + ("" if self.value is None else f"={shown(self.value)}")
        text = f"{subject}: {self.reason}"
        near = nearest(self._word, self.choices)
        if near:
            text += f"; did you mean {' or '.join(near)}?"
        if self.choices and len(self.choices) <= _LISTED:
            text += f"{'' if near else ';'} valid: {', '.join(self.choices)}"
        elif self.choices and not near:
            text += "; see --help"
        return "\n".join(map(_escaped, text.split("\n")))


class UsageError(SuiteError):
    """An option, or a combination of options, that was typed cannot be had."""


def shown(value: object) -> str:
    """Spells a value as the command line has it, in one line of bearable length, without what is secret."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif value is None:
        text = "null"
    elif isinstance(value, (list, tuple)):
        text = f"[{','.join(map(shown, value))}]"
    elif isinstance(value, Mapping):
        text = f"{{{', '.join(f'{shown(key)}: {shown(entry)}' for key, entry in value.items())}}}"
    else:
        text = hide_passwords(str(value))
    text = _escaped(text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"


def _escaped(text: str) -> str:
    """Replaces what is not printable: it could move the cursor of a terminal, or change how the rest is shown."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def nearest(word: str, choices: Iterable[str]) -> list[str]:
    """Returns up to three of `choices` that look like `word`, the likest first."""
    known = list(choices)
    if len(word) > _LONGEST_NAME:
        return []
    # `epochs` means `train.epochs`: what ends alike is nearer than what has as many letters in common.
    ends = [choice for choice in known if choice.rpartition(".")[2] == word.rpartition(".")[2]]
    return ends[:3] or difflib.get_close_matches(word, known, n=3, cutoff=0.5)
