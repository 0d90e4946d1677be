"""What OmegaConf says of values of the wrong type and of references, in the words of the command line."""

from __future__ import annotations

import re

from omegaconf.errors import InterpolationKeyError, InterpolationValidationError, UnsupportedInterpolationType

from ablations.common.errors import shown
from ablations.common.wording import first_line

TAKES_LIST = "is given as a list, as [this,that]"
TAKES_SETTINGS = "is given as settings, as {attention: {groups: [1,2]}}"
REFERENCES = "is not understood; ${name} is another option, ${oc.env:NAME} of the environment"
_TYPES = {
    "converted to Integer": "is no whole number",
    "converted to Float": "is no number",
    "is not a valid bool": "is neither true nor false",
    "hint 'Union[int, str]'": "is no whole number",
    "hint 'Union[int, float, str]'": "is no number",
    "hint 'Union[float, str]'": "is no number",
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


def interpolation_reason(error: Exception) -> str:
    """Says in plain words why an option cannot take its value from where it refers to."""
    first = first_line(error)
    if isinstance(error, InterpolationValidationError):
        return f"what it refers to {type_reason(error)}"
    if isinstance(error, InterpolationKeyError):
        return "refers to an option that there is not"
    if isinstance(error, UnsupportedInterpolationType):
        return REFERENCES
    if "Recursive interpolation" in first or isinstance(error, RecursionError):
        return "refers to itself"
    if found := re.search(r"Environment variable '(.*)' not found", first):
        return f"there is no environment variable {found.group(1)}"
    return "cannot be resolved"
