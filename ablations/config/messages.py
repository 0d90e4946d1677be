"""Translates OmegaConf's errors about types and references into messages about the command line."""

from __future__ import annotations

import re

from omegaconf.errors import InterpolationKeyError, InterpolationValidationError, UnsupportedInterpolationType

from ablations.common.errors import shown
from ablations.common.wording import first_line

TAKES_LIST = "must be a list such as [a,b]"
TAKES_SETTINGS = "must be a mapping such as {attention: {groups: [1,2]}}"
REFERENCES = "cannot be parsed; ${name} refers to an option, ${oc.env:NAME} to an environment variable"
_TYPES = {
    "converted to Integer": "must be an integer",
    "converted to Float": "must be a number",
    "is not a valid bool": "must be true or false",
    "hint 'Union[int, str]'": "must be an integer",
    "hint 'Union[int, float, str]'": "must be a number",
    "hint 'Union[float, str]'": "must be a number",
    "is not Optional": "needs a value",
    "Incompatible value 'None'": "needs a value",
    "NoneType is not a subclass": "has an entry without a value (null)",
    "Incompatible key type": "has a name that is not a string",
    "Cannot convert 'list' to string": "expects a single value",
    "Cannot convert 'dict' to string": "expects a single value, not a mapping",
    "is not a ListConfig": TAKES_LIST,
    "is not a subclass of Dict": TAKES_SETTINGS,
    "to Dict[": TAKES_SETTINGS,
    "Invalid loaded object type": "contains no options",
    "no viable alternative": REFERENCES,
    "mismatched input": REFERENCES,
    "token recognition error": REFERENCES,
    "(int) is incompatible with (str)": "has a number as a name; quote it to make it a string",
}


def type_reason(error: Exception) -> str:
    """Returns the reason of OmegaConf's error about a wrong type; of an unlisted error, its first line."""
    for fragment, reason in _TYPES.items():
        if fragment in str(error):
            return reason
    text = shown(first_line(error).rstrip("."))
    return text[:1].lower() + text[1:]


def interpolation_reason(error: Exception) -> str:
    """Returns the reason why a reference such as `${seed}` cannot be resolved."""
    first = first_line(error)
    if isinstance(error, InterpolationValidationError):
        return f"the value that it refers to {type_reason(error)}"
    if isinstance(error, InterpolationKeyError):
        return "refers to an unknown option"
    if isinstance(error, UnsupportedInterpolationType):
        return REFERENCES
    if "Recursive interpolation" in first or isinstance(error, RecursionError):
        return "refers to itself"
    if found := re.search(r"Environment variable '(.*)' not found", first):
        return f"environment variable {found.group(1)} is not set"
    return "cannot be resolved"
