"""Paths as URLs: the file that is opened is the one that was meant, whatever its name is."""

from __future__ import annotations

import sqlite3
from html import escape
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from sqlalchemy import create_engine, text

from ablations.common.urls import file_url, relative_link, sqlite_url
from ablations.storage.access import study_names
from ablations.storage.database import database_file
from ablations.storage.study import open_store

ODD = (
    "o'brien", 'a "b"', "cats, dogs", "set{1}", "{SCHEMA_VERSION}", "50%", "%41%2F", "what?", "a?b=c&d", "no#1", "a b",
    "a+b", "größe", "研究", "a;b", "a@b:c", "[x]", "$HOME", "back\\slash", "-x", "~x", "=", "sqlite:", "&amp;",
)  # fmt: skip
NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\x00"), min_size=1, max_size=30).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)


@given(st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: Path("/", *parts)) | NAMES.map(Path))
def test_the_url_of_a_path_is_that_of_no_other_path(path: Path) -> None:
    assert database_file(sqlite_url(path)) == path
    assert unquote(urlsplit(file_url(path)).path) == str(path.resolve())


@pytest.mark.parametrize("name", ODD)
def test_a_database_is_made_where_its_path_says(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with create_engine(sqlite_url(folder / f"{name}.db")).connect() as connection:
        connection.execute(text("CREATE TABLE t (x)"))
    assert [path.name for path in folder.iterdir()] == [f"{name}.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with sqlite3.connect(folder / f"{name}.db") as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]


def test_optuna_keeps_a_study_in_a_folder_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "".join(name for name in ODD if name != "-x")
    folder.mkdir()
    url = sqlite_url(folder / "optuna.db")
    open_store(url, "mine", create=True)
    assert study_names(url) == ["mine"]
    assert [path.name for path in folder.iterdir()] == ["optuna.db"]
    if not set("{}") & set(url):  # which Optuna's own tools take for a template
        assert optuna.get_all_study_names(url) == ["mine"]


@given(st.lists(NAMES, min_size=1, max_size=3))
def test_a_link_leads_to_its_file_from_html_and_from_markdown(parts: list[str]) -> None:
    folder, path = Path("/results/mine"), Path("/results", *parts)
    link = relative_link(path, folder)
    assert unquote(urlsplit(urljoin("file:///results/mine/index.html", link)).path) == str(path)
    assert escape(link) == link
    (_, inline, _) = MarkdownIt().parse(f"[x]({link})")
    assert inline.children is not None
    assert inline.children[0].attrs["href"] == link
