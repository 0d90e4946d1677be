"""The console of all verbs: as wide as the terminal, plain text elsewhere; paths and URLs are never wrapped."""

from __future__ import annotations

import shutil
import sys
import textwrap

from rich.console import Console, ConsoleDimensions
from rich.text import Text

from ablations.common.surroundings import BROKEN_PIPE_STATUS, print_replacements

_NARROWEST = 60  # columns; narrower terminals get the same lines as a file
_PLAIN_WIDTH = 150  # columns of tables where the output is not a terminal


class _Console(Console):
    """A console that ends a verb with the status of a broken pipe if the reader has closed it, as `head` does."""

    def on_broken_pipe(self) -> None:
        """Ends the program; rich itself would use status 1, which means a study with failed cells."""
        try:
            super().on_broken_pipe()
        except SystemExit:
            raise SystemExit(BROKEN_PIPE_STATUS) from None


def make_console() -> Console:
    """Returns a console as wide as the terminal; elsewhere, and in very narrow terminals, one that wraps only tables.

    `:x:` in a name is not replaced by an emoji.
    """
    print_replacements()
    if sys.stdout is not None and sys.stdout.isatty():  # None in a program without standard output
        console = _Console(highlight=False, emoji=False)
        if console.is_dumb_terminal:  # rich assumes 80 columns for it
            columns, lines = shutil.get_terminal_size()
            console.size = ConsoleDimensions(columns, lines)
        if console.width >= _NARROWEST:
            return console
    # Plain even with FORCE_COLOR, which notebooks and CI set: progress bars that redraw themselves need a terminal. In
    # notebooks rich would create a separate coloured output for each line.
    return _Console(highlight=False, emoji=False, width=_PLAIN_WIDTH, force_terminal=False, force_jupyter=False)


def print_text(console: Console, *texts: str, title: str = "") -> None:
    """Prints each text as a paragraph; a title is printed in bold before the first one.

    On a terminal lines are wrapped at spaces, so that a long path or URL stays whole; elsewhere they are not wrapped.
    """
    for number, text in enumerate(texts):
        is_titled = bool(title) and number == 0
        for line in _lines(console, f"{title}: {text}" if is_titled else text):
            # rich's own wrapping cuts words that are longer than a line.
            styled = Text(line)
            styled.stylize("bold", 0, len(title) if is_titled else 0)
            console.print(styled, soft_wrap=True)
            is_titled = False


def _lines(console: Console, text: str) -> list[str]:
    lines = text.split("\n")
    if not console.is_terminal:
        return lines
    wrapped = (textwrap.wrap(line, console.width, break_long_words=False, break_on_hyphens=False) for line in lines)
    return [part for parts in wrapped for part in parts or [""]]


def print_path(console: Console, name: str, *places: object) -> None:
    """Prints the places of something, one per line and unwrapped: files, or the command that opens it."""
    for place in places:
        console.print(f"{name + ':' if name else '':11} {place}", soft_wrap=True, markup=False)
        name = ""
