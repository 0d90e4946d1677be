from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from ablations.common.console import make_console, print_path, print_text
from ablations.common.surroundings import BROKEN_PIPE_STATUS

URL = "http://localhost:5000/#/experiments/1/runs/0123456789abcdef0123456789abcdef"
PATH = "/a/folder with spaces/that-is-deep/groups-digits-resnet8/figures/learning_curves.png"


def test_what_is_no_terminal_gets_plain_lines_even_where_colour_is_forced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks and CI have it
    console = make_console()
    assert not console.is_terminal
    console.print("[bold]word[/]")
    assert capsys.readouterr().out == "word\n"


def test_a_reader_that_has_gone_ends_a_verb_with_the_status_of_a_broken_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    script = "from ablations.common.console import make_console; make_console().print('words')"
    done = subprocess.run([sys.executable, "-c", script], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (BROKEN_PIPE_STATUS, b"")


def printed(width: int | None, *texts: str, title: str = "") -> list[str]:
    """Returns the lines that `say` prints on a terminal of a width, or elsewhere."""
    file = io.StringIO()
    print_text(
        Console(file=file, width=width or 150, force_terminal=width is not None, no_color=True), *texts, title=title
    )
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 60, 80, 120, 200])
def test_a_terminal_has_sentences_wrapped_at_spaces_and_longer_words_whole(width: int) -> None:
    text = f"What was measured is reported, without colours [bold] or :x:, and is in {URL}, as well as behind it."
    lines = printed(width, text)
    assert " ".join(lines) == text
    assert all(len(line) <= width or " " not in line for line in lines)
    assert sum(f"{URL}," in line for line in lines) == 1


def test_elsewhere_a_sentence_is_one_line() -> None:
    text = "words " * 100 + URL
    assert printed(None, text, "\nAnother.") == [text, "", "Another."]


def test_a_title_stands_before_the_first_text_alone() -> None:
    assert printed(None, "One?", "Two.", title="a [b]") == ["a [b]: One?", "Two."]
    first, second = printed(80, "One?", "Two.", title="a [b]")
    assert first.startswith("\x1b[1ma [b]\x1b[0m: One?")
    assert second == "Two."


def test_a_place_is_a_line_of_its_own() -> None:
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=True, no_color=True)
    print_path(console, "Figures", PATH, "b.png")
    print_path(console, "Page")
    assert file.getvalue().splitlines() == [f"Figures:    {PATH}", "            b.png"]
