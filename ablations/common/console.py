"""The console of all verbs: as wide as the terminal, plain text elsewhere; no path and no URL is broken."""

from __future__ import annotations

import shutil
import sys
import textwrap

from rich.console import Console, ConsoleDimensions
from rich.text import Text

from ablations.common.surroundings import BROKEN_PIPE_STATUS, print_replacements

_NARROWEST = 60  # columns; a narrower terminal gets the lines of a file
_PLAIN_WIDTH = 150  # of cells with sentences in a table, where the output is no terminal


class _Console(Console):
    """A console that ends a verb with the status of a broken pipe where the reader has gone, as `head` does."""

    def on_broken_pipe(self) -> None:
        """Ends the program; rich's own way has the status of a study with failed cells."""
        try:
            super().on_broken_pipe()
        except SystemExit:
            raise SystemExit(BROKEN_PIPE_STATUS) from None


def make_console() -> Console:
    """Returns a console as wide as the terminal; elsewhere, and in very narrow terminals, one without a width to keep.

    `:x:` in a name is not an emoji.
    """
    print_replacements()
    if sys.stdout is not None and sys.stdout.isatty():  # None in a program without standard output
        console = _Console(highlight=False, emoji=False)
        if console.is_dumb_terminal:  # of which rich assumes 80 columns
            columns, lines = shutil.get_terminal_size()
            console.size = ConsoleDimensions(columns, lines)
        if console.width >= _NARROWEST:
            return console
    # Even with FORCE_COLOR, which notebooks and CI set: bars that are drawn again and again are for terminals. In
    # notebooks, too, lines are plain: rich would make an output with colours of each.
    return _Console(highlight=False, emoji=False, width=_PLAIN_WIDTH, force_terminal=False, force_jupyter=False)


def print_text(console: Console, *texts: str, title: str = "") -> None:
    """Prints each text as a paragraph, the first one behind a title in bold, if there is one.

    On a terminal lines end at spaces, and a longer word, such as a path or a URL, is left whole; elsewhere lines are as
    long as they are.
    """
    for number, text in enumerate(texts):
        is_titled = bool(title) and number == 0
        for line in _lines(console, f"{title}: {text}" if is_titled else text):
            # rich wraps, too, but cuts words that are longer than a line.
            shown = Text(line)
            shown.stylize("bold", 0, len(title) if is_titled else 0)
            console.print(shown, soft_wrap=True)
            is_titled = False


def _lines(console: Console, text: str) -> list[str]:
    lines = text.split("\n")
    if not console.is_terminal:
        return lines
    wrapped = (textwrap.wrap(line, console.width, break_long_words=False, break_on_hyphens=False) for line in lines)
    return [part for parts in wrapped for part in parts or [""]]


def print_path(console: Console, name: str, *places: object) -> None:
    """Prints where something is, a line each: files, or the command that opens it; no line is wrapped."""
    for place in places:
        console.print(f"{name + ':' if name else '':11} {place}", soft_wrap=True, markup=False)
        name = ""
