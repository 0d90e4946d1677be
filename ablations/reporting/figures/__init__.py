"""One file per figure: one function computes a tidy frame, another draws it; `registry` selects those of a study.

Drawing functions require a nonempty frame, and draw the `caption` below the figure.
"""

from __future__ import annotations

from ablations.common.errors import UsageError, shown
from ablations.config import FIGURES, PREDICTED, variants_named

__all__ = ["FIGURES", "chosen_figures"]


def chosen_figures(asked: object, against: object = "") -> tuple[list[str], bool]:
    """Returns the figures that `figures=` selects, in the order of a report, and whether it only excludes some.

    `asked` is `all`, a name, or a list of these and of `-name`, which excludes a figure. With `against`, `all` means
    the figures of predictions, and others are refused.

    Raises:
        UsageError: for an unknown figure, or one that `against` does not apply to.
    """
    if against not in ("", None):
        variants_named(against)
        names = list(PREDICTED) if asked == "all" else chosen_figures(asked)[0]
        for name in names:
            if name not in PREDICTED:
                raise UsageError(
                    "against", against, f"does not apply to the figure {name}; use figures=[{','.join(PREDICTED)}]"
                )
        return names, False
    words = [shown(word) for word in (asked if isinstance(asked, list) else [asked])]
    choices = ("all", *FIGURES)
    for word in words:
        if word.removeprefix("-") not in choices or word == "-all":
            raise UsageError("figures", word, "unknown figure", choices)
    left_out = {word.removeprefix("-") for word in words if word.startswith("-")}
    named = {word for word in words if not word.startswith("-")}
    if not named:
        reason = "selects no figure; to exclude figures, write [all,-cams]"
        raise UsageError("figures", ",".join(words) or "[]", reason)
    everything = "all" in named
    return [name for name in FIGURES if (everything or name in named) and name not in left_out], everything
