"""Errors that the user can correct: one message, exit status 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from ablations.common.urls import hide_passwords

_LISTED = 12  # longer lists of choices are not printed
_LONGEST = 300  # characters of a value that are repeated
_LONGEST_NAME = 100  # longer words are not misspellings, and the search for close matches would take seconds


class SuiteError(Exception):
    """An error that the user can correct; the message names the option, the value, the reason and valid choices.

    Args:
        option: the option or file at fault, such as `train.epochs`.
        value: its value; None if it has none.
        reason: why this is an error, as a clause.
        choices: valid choices; the message suggests the closest ones.
        word: the word that suggestions are compared with; by default the value (or, without one, the option).
    """

    def __init__(
        self, option: str, value: object, reason: str, choices: Iterable[str] = (), word: str | None = None
    ) -> None:
        self.option, self.value, self.reason, self.choices = option, value, reason, tuple(choices)
        self._word = word or str(option if value is None else value)
        super().__init__(self._message())

    def within(self, place: str) -> SuiteError:
        """Returns the same error with the place where it occurred before the reason."""
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
    """An option, or a combination of options, is invalid."""


def shown(value: object) -> str:
    """Formats a value as on the command line: in one line of limited length, with secrets hidden."""
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
    """Escapes unprintable characters, which could move a terminal's cursor or change how the text is displayed."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def nearest(word: str, choices: Iterable[str]) -> list[str]:
    """Returns up to three of `choices` that are similar to `word`, the most similar first."""
    names = list(choices)
    if len(word) > _LONGEST_NAME:
        return []
    # `epochs` means `train.epochs`: an equal last part counts more than the number of common letters.
    ends = [name for name in names if name.rpartition(".")[2] == word.rpartition(".")[2]]
    return ends[:3] or difflib.get_close_matches(word, names, n=3, cutoff=0.5)
