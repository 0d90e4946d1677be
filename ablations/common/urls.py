"""Paths as URLs, and URLs that are safe to show: in messages, reports and stores, secrets are three asterisks."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote

_END = r"\s'\"<>"  # what ends a URL in a text
_SECRET = r"(?:password|passwd|passphrase|pwd|token|secret|api_?key|access_?key|credentials?|signature|sig)"
_HIDDEN = (
    # Of a web address everything before the `@`, which may be a token: it names nobody who has to be known.
    (re.compile(rf"(https?://)[^/?#{_END}]+(@)", re.IGNORECASE), r"\1***\2"),
    # Of a database's what stands behind the user, up to the last `@` before the host's `/`: nobody escapes everything.
    (re.compile(rf"((?!https?)\b[\w+.-]+://[^:/@{_END}]*:)[^@{_END}]+(?:@[^/?#@{_END}]*(?=@))*(@)", re.IGNORECASE),
     r"\1***\2"),
    # Parameters of a URL, by their names.
    (re.compile(rf"([?&;][\w.%-]*{_SECRET}=)[^&;#{_END}]+", re.IGNORECASE), r"\1***"),
    # What drivers write in their messages: password=..., 'password': '...'.
    (re.compile(rf"(?<![\w.])((?:ssl)?password\s*=\s*)(?:'[^']*'|[^{_END}&,;)]+)", re.IGNORECASE), r"\1***"),
    (re.compile(r"(['\"](?:ssl)?password['\"]\s*:\s*['\"])[^'\"]+", re.IGNORECASE), r"\1***"),
)  # fmt: skip
_AUTHORITY = re.compile(r"(https?)?.*?://([^:/@\s]*)(?::([^\s?#]*))?@")
_SHORTEST = 3  # letters of a secret that is looked for by itself


def sqlite_url(path: Path) -> str:
    """Returns the SQLAlchemy URL of a SQLite file: `sqlite:///results/optuna.db`.

    What a URL would read as something else is percent-encoded, so it means the same to Optuna, MLflow and their
    command lines. `database_file` of `ablations.storage.database` is the inverse.

    Raises:
        ValueError: if the path has a question mark, which no URL of SQLAlchemy before 2.1 can have.
    """
    if _decodes_database():
        return "sqlite:///" + re.sub("[%?]", lambda sign: quote(sign[0]), str(path))
    if "?" in str(path):
        raise ValueError("a path with a question mark needs SQLAlchemy 2.1 or later")
    return f"sqlite:///{path}"


def file_url(path: Path) -> str:
    """Returns the `file://` URL of a file or folder."""
    return path.resolve().as_uri()


@cache
def _decodes_database() -> bool:
    """Whether SQLAlchemy decodes percent signs in the name of a database, as it does from 2.1 on."""
    from sqlalchemy.engine import make_url  # late: most commands that end in a message need no database

    return make_url("sqlite:///%3F").database == "?"


def relative_link(path: Path, folder: Path) -> str:
    """Returns a relative link from a page in `folder` to a file, for HTML and Markdown, whatever its name is."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())


def hide_passwords(text: str, url: str = "") -> str:
    """Replaces the secrets of every URL in a text: passwords, tokens, and parameters that are named like them.

    Those of `url`, of which the text speaks, are replaced wherever they stand, as drivers tear URLs to pieces.
    """
    for pattern, shown in _HIDDEN:
        text = pattern.sub(shown, text)
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets(url: str) -> set[str]:
    found: set[str] = set()
    if match := _AUTHORITY.match(url):
        web, user, password = match.groups()
        parts = [password or "", *(password or "").split("@"), user if web else ""]
        found.update(parts, map(unquote, parts))
    for value in re.findall(rf"[?&;][\w.%-]*{_SECRET}=([^&;#\s]+)", url, re.IGNORECASE):
        found.update((value, unquote(value)))
    return {secret for secret in found if len(secret) >= _SHORTEST}
