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
from sqlalchemy.engine import make_url

from ablations.common.urls import file_url, hide_passwords, relative_link, sqlite_url
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


# Before SQLAlchemy 2.1 no URL of it could have a question mark: such a path is refused.
HAS_QUESTION_MARKS = make_url("sqlite:///%3F").database == "?"


def is_refused(path: Path) -> bool:
    if "?" not in str(path) or HAS_QUESTION_MARKS:
        return False
    with pytest.raises(ValueError, match="question mark"):
        sqlite_url(path)
    return True


@given(st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: Path("/", *parts)) | NAMES.map(Path))
def test_urls_of_paths_can_be_inverted(path: Path) -> None:
    if is_refused(path):
        return
    assert database_file(sqlite_url(path)) == path
    assert unquote(urlsplit(file_url(path)).path) == str(path.resolve())


@pytest.mark.parametrize("name", ODD)
def test_a_database_is_created_at_its_path(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    if is_refused(folder):
        return
    folder.mkdir()
    with create_engine(sqlite_url(folder / f"{name}.db")).connect() as connection:
        connection.execute(text("CREATE TABLE t (x)"))
    assert [path.name for path in folder.iterdir()] == [f"{name}.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with sqlite3.connect(folder / f"{name}.db") as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]


def test_optuna_stores_a_study_in_a_folder_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "".join(name for name in ODD if name != "-x" and ("?" not in name or HAS_QUESTION_MARKS))
    folder.mkdir()
    url = sqlite_url(folder / "optuna.db")
    open_store(url, "mine", create=True)
    assert study_names(url) == ["mine"]
    assert [path.name for path in folder.iterdir()] == ["optuna.db"]
    if not set("{}") & set(url):  # Optuna's own tools format the URL as a template
        assert optuna.get_all_study_names(url) == ["mine"]


@given(st.lists(NAMES, min_size=1, max_size=3))
def test_relative_links_are_correct_in_html_and_markdown(parts: list[str]) -> None:
    folder, path = Path("/results/mine"), Path("/results", *parts)
    link = relative_link(path, folder)
    assert unquote(urlsplit(urljoin("file:///results/mine/index.html", link)).path) == str(path)
    assert escape(link) == link
    (_, inline, _) = MarkdownIt().parse(f"[x]({link})")
    assert inline.children is not None
    assert inline.children[0].attrs["href"] == link


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mysql://u:p4ss@h/d", "mysql://u:***@h/d"),
        (
            "run storage=postgresql://u:p@h/d tracking.uri=http://a:b@c",
            "run storage=postgresql://u:***@h/d tracking.uri=http://***@c",
        ),
        ("postgresql+psycopg2://:p4ss@h/d", "postgresql+psycopg2://:***@h/d"),  # without a user
        ("postgresql://me@h:5432/d", "postgresql://me@h:5432/d"),  # without a password
        ("postgresql://u:p@ss@h/d", "postgresql://u:***@h/d"),  # not percent-encoded
        ("postgresql://u:p/a:ss@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p%40ss@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h/d?user=u&password=p&sslmode=require", "postgresql://h/d?user=u&password=***&sslmode=require"),
        ("postgresql://h/d?sslpassword=p%20q", "postgresql://h/d?sslpassword=***"),
        ("https://dapi0123@host/x", "https://***@host/x"),  # a token
        ("https://host/x?access_token=abc#y", "https://host/x?access_token=***#y"),
        ("https://host/x?X-Amz-Signature=abc&n=1", "https://host/x?X-Amz-Signature=***&n=1"),
        ("storage='mysql://u:p4ss@h/d' study=x", "storage='mysql://u:***@h/d' study=x"),
        ("invalid dsn: host=h password=p4ss user=u", "invalid dsn: host=h password=*** user=u"),
        ("{'user': 'u', 'password': 'p4ss'}", "{'user': 'u', 'password': '***'}"),
        ("sqlite:///results/optuna.db", "sqlite:///results/optuna.db"),
        ("http://host:5000/x?by=a@b", "http://host:5000/x?by=a@b"),
        ("http://127.0.0.1:5000/#/x", "http://127.0.0.1:5000/#/x"),
    ],
)
def test_only_secrets_are_hidden(text: str, expected: str) -> None:
    assert hide_passwords(text) == expected


def test_secrets_in_quoted_parts_of_a_url_are_hidden() -> None:
    url = "postgresql://u:p4ss@w0rd@h/d"  # drivers read `w0rd@h` as the host
    message = 'could not translate host name "w0rd@h" to address; the password p4ss@w0rd was not tried'
    hidden = hide_passwords(message, url)
    assert "w0rd" not in hidden
    assert "p4ss" not in hidden
    assert hide_passwords("no route to h; d is not there", url) == "no route to h; d is not there"
