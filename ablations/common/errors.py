"""The errors that are the user's to mend: one message, exit status 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from ablations.common.urls import hide_passwords
from ablations.common.wording import first_line

_LISTED = 12  # more choices than this are too many to read
_LONGEST = 300  # characters of a value that are repeated
_LONGEST_NAME = 100  # longer ones are no misspellings, and looking for what is near them takes seconds


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
        subject = shown(str(self.option)) + ("" if self.value is None else f"={shown(self.value)}")
        text = f"{subject}: {self.reason}"
        near = nearest(self._word, self.choices)
        if near:
            text += f"; did you mean {' or '.join(near)}?"
        if self.choices and len(self.choices) <= _LISTED:
            text += f"{'' if near else ';'} valid: {', '.join(self.choices)}"
        elif self.choices and not near:
            text += "; --help lists what there is"
        return text


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
    text = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"


TAKES_LIST = "is given as a list, as [this,that]"
TAKES_SETTINGS = "is given as settings, as {attention: {groups: [1,2]}}"
REFERENCES = "is not understood; ${name} is another option, ${oc.env:NAME} of the environment"
_TYPES = {
    "converted to Integer": "is no whole number",
    "converted to Float": "is no number",
    "is not a valid bool": "is neither true nor false",
    "hint 'Union[int, str]'": "is no whole number",
    "is not Optional": "needs a value",
    "Incompatible value 'None'": "needs a value",
    "NoneType is not a subclass": "has an entry without a value",
    "Incompatible key type": "has a name that is no text",
    "Cannot convert 'list' to string": "is one value, not several",
    "Cannot convert 'dict' to string": "is one value, not settings",
    "is not a ListConfig": TAKES_LIST,
    "is not a subclass of Dict": TAKES_SETTINGS,
    "to Dict[": TAKES_SETTINGS,
    "Invalid loaded object type": "has no settings",
    "no viable alternative": REFERENCES,
    "mismatched input": REFERENCES,
    "token recognition error": REFERENCES,
    "(int) is incompatible with (str)": "has a name that is a number; quotes around it make it text",
}


def type_reason(error: Exception) -> str:
    """Says in plain words what OmegaConf says of a value of the wrong type; other errors keep their first line."""
    for known, reason in _TYPES.items():
        if known in str(error):
            return reason
    text = shown(first_line(error).rstrip("."))
    return text[:1].lower() + text[1:]


def nearest(word: str, choices: Iterable[str]) -> list[str]:
    """Returns up to three of `choices` that look like `word`, the likest first."""
    known = list(choices)
    if len(word) > _LONGEST_NAME:
        return []
    # `epochs` means `train.epochs`: what ends alike is nearer than what has as many letters in common.
    ends = [choice for choice in known if choice.rpartition(".")[2] == word.rpartition(".")[2]]
    return ends[:3] or difflib.get_close_matches(word, known, n=3, cutoff=0.5)
