from __future__ import annotations

import io
import re
from collections.abc import Sequence
from itertools import product

import pytest
from rich.cells import cell_len
from rich.console import Console

from ablations.reporting.tables.render import print_table
from tests.wording import worded

HEADERS = ("variant", "n", "top-1 % [95 % CI]", "difference [95 % CI]", "verdict", "step × no attention", "parameters")
VALUES = ("8", "90.4 [89.3, 91.4]", "+0.49 [-0.54, +1.52]", "equivalent", "1.12 [1.11, 1.13]", "75,626")
SHORT = ("none", "groups=1")
LONG = ("none", "channel=none, spatial=none, shuffle=off")
LONGEST = ("none", "a name of a variant that has as many characters as eighty columns have, and more!!")
WIDE = ("none", "分组注意力")  # each character is two columns wide
SENTENCE = "Learning W2 and b2 after the norm's own weight and bias is redundant: without them 0.12 points are lost"


def printed(
    width: int | None,
    names: Sequence[str],
    headers: Sequence[str] = HEADERS,
    values: Sequence[str] = VALUES,
    sentences: Sequence[str] = (),
) -> list[str]:
    """Returns the lines of a table printed on a terminal of a width, or not on a terminal."""
    file = io.StringIO()
    console = Console(file=file, width=width or 150, force_terminal=width is not None, color_system=None)
    print_table(console, headers, [[name, *values] for name in names], sentences=sentences)
    return file.getvalue().splitlines()


def cells(lines: Sequence[str]) -> list[list[str]]:
    """Returns the cells of each line of a table."""
    return [[cell.strip() for cell in re.split("[┃│]", line)[1:-1]] for line in lines if line[:1] in "┃│"]


@pytest.mark.parametrize(("width", "names"), list(product((60, 80, 120, 200), (SHORT, LONG, WIDE))))
def test_no_name_or_number_is_truncated_on_any_terminal(width: int, names: Sequence[str]) -> None:
    lines = printed(width, names)
    assert max(map(cell_len, lines)) <= width
    found = [cell for line in cells(lines) for cell in line]
    for text in (*names, *HEADERS):
        assert text in found
    for value in VALUES:
        assert found.count(value) == len(names)


@pytest.mark.parametrize(("width", "below"), [(60, 3), (80, 2), (200, 0)])
def test_a_line_below_lists_the_continued_columns_in_order(width: int, below: int) -> None:
    lines = printed(width, SHORT)
    said = " ".join(line for line in lines if line[0] not in "┏┃┡│└")
    columns = ", ".join(HEADERS[len(HEADERS) - below :])
    assert said == (worded("tables.continued", columns=columns, width=width) if below else "")
    headers = [header for line in lines if line[0] == "┃" for header in cells([line])[0]]
    assert [header for header in headers if header != "variant"] == list(HEADERS[1:])
    assert headers.count("variant") == sum(line[0] == "┏" for line in lines)


def test_rows_are_numbered_if_names_leave_little_space() -> None:
    lines = printed(60, LONG)
    found = cells(lines)
    assert ["2", LONG[1], "8"] in found
    assert ["2", *VALUES[1:3]] in found
    assert all(line[0] in ("row", "1", "2") for line in found)


def test_a_name_longer_than_the_terminal_is_wrapped_at_a_space() -> None:
    lines = printed(60, LONGEST)
    assert max(map(len, lines[:-2])) <= 60
    first = lines[: next(place for place, line in enumerate(lines) if line[0] == "└")]
    assert " ".join(line[1] for line in cells(first)) == f"variant {' '.join(LONGEST)}"


@pytest.mark.parametrize("names", [SHORT, LONG, LONGEST, WIDE])
def test_without_a_terminal_a_table_has_one_part(names: Sequence[str]) -> None:
    lines = printed(None, names)
    assert cells(lines) == [list(HEADERS), *([name, *VALUES] for name in names)]
    assert {line[0] for line in lines} == set("┏┃┡│└")


@pytest.mark.parametrize("width", [None, 80, 120, 200])
def test_sentences_are_wrapped_at_spaces_in_the_remaining_width(width: int | None) -> None:
    headers, values = ("claim", "claimed", "verdict", "evidence"), (SENTENCE, "undecided", SENTENCE)
    lines = printed(width, ["affine"], headers, values, sentences=("claimed", "evidence"))
    assert {len(line) for line in lines} == {width or 150}
    assert {line[0] for line in lines} == set("┏┃┡│└")  # in one part
    for place in (1, 3):
        assert " ".join(filter(None, (line[place] for line in cells(lines)[1:]))) == SENTENCE


def test_headers_and_cells_are_shown_literally() -> None:
    lines = printed(None, ["[i]b[/i]"], ["[bold]a[/]", ":x: [/]"], ["[/]"])
    assert cells(lines) == [["[bold]a[/]", ":x: [/]"], ["[i]b[/i]", "[/]"]]
