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


def test_without_a_terminal_output_is_plain_even_with_force_color(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in notebooks and CI
    console = make_console()
    assert not console.is_terminal
    console.print("[bold]word[/]")
    assert capsys.readouterr().out == "word\n"


def test_a_closed_pipe_ends_a_verb_with_the_status_of_a_broken_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    script = "from ablations.common.console import make_console; make_console().print('words')"
    done = subprocess.run([sys.executable, "-c", script], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (BROKEN_PIPE_STATUS, b"")


def printed(width: int | None, *texts: str, title: str = "") -> list[str]:
    """Returns the lines that `print_text` prints on a terminal of a width, or for None without a terminal."""
    file = io.StringIO()
    print_text(
        Console(file=file, width=width or 150, force_terminal=width is not None, no_color=True), *texts, title=title
    )
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 60, 80, 120, 200])
def test_on_a_terminal_text_is_wrapped_at_spaces_and_long_words_stay_whole(width: int) -> None:
    text = f"What was measured is reported, without colours [bold] or :x:, and is in {URL}, as well as behind it."
    lines = printed(width, text)
    assert " ".join(lines) == text
    assert all(len(line) <= width or " " not in line for line in lines)
    assert sum(f"{URL}," in line for line in lines) == 1


def test_without_a_terminal_text_is_not_wrapped() -> None:
    text = "words " * 100 + URL
    assert printed(None, text, "\nAnother.") == [text, "", "Another."]


def test_a_title_is_printed_before_the_first_text_only() -> None:
    assert printed(None, "One?", "Two.", title="a [b]") == ["a [b]: One?", "Two."]
    first, second = printed(80, "One?", "Two.", title="a [b]")
    assert first.startswith("\x1b[1ma [b]\x1b[0m: One?")
    assert second == "Two."


def test_each_path_is_printed_on_a_separate_line() -> None:
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=True, no_color=True)
    print_path(console, "Figures", PATH, "b.png")
    print_path(console, "Page")
    assert file.getvalue().splitlines() == [f"Figures:    {PATH}", "            b.png"]
