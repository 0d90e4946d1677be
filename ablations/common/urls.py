"""Converts paths to URLs, and replaces secrets in messages, reports and stores by three asterisks."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote

_END = r"\s'\"<>"  # characters that end a URL in a text
_SECRET = r"(?:password|passwd|passphrase|pwd|token|secret|api_?key|access_?key|credentials?|signature|sig)"
_HIDDEN = (
    # Web address: everything before the `@`, which may be a token.
    (re.compile(rf"(https?://)[^/?#{_END}]+(@)", re.IGNORECASE), r"\1***\2"),
    # Database: the password, up to the last `@` before the host's `/`, because passwords are not always escaped.
    (re.compile(rf"((?!https?)\b[\w+.-]+://[^:/@{_END}]*:)[^@{_END}]+(?:@[^/?#@{_END}]*(?=@))*(@)", re.IGNORECASE),
     r"\1***\2"),
    # Parameters of a URL, by their names.
    (re.compile(rf"([?&;][\w.%-]*{_SECRET}=)[^&;#{_END}]+", re.IGNORECASE), r"\1***"),
    # Messages of drivers: password=..., 'password': '...'.
    (re.compile(rf"(?<![\w.])((?:ssl)?password\s*=\s*)(?:'[^']*'|[^{_END}&,;)]+)", re.IGNORECASE), r"\1***"),
    (re.compile(r"(['\"](?:ssl)?password['\"]\s*:\s*['\"])[^'\"]+", re.IGNORECASE), r"\1***"),
)  # fmt: skip
_AUTHORITY = re.compile(r"(https?)?.*?://([^:/@\s]*)(?::([^\s?#]*))?@")
_SHORTEST = 3  # letters; shorter secrets are not searched for outside their URL


def sqlite_url(path: Path) -> str:
    """Returns the SQLAlchemy URL of a SQLite file: `sqlite:///results/optuna.db`.

    Characters with a meaning in URLs are percent-encoded, so that Optuna, MLflow and their command lines read the same
    path. `database_file` of `ablations.storage.database` is the inverse.

    Raises:
        ValueError: if the path has a question mark and SQLAlchemy is older than 2.1.
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
    from sqlalchemy.engine import make_url  # imported late: errors of the command line are reported without it

    return make_url("sqlite:///%3F").database == "?"


def relative_link(path: Path, folder: Path) -> str:
    """Returns a relative link from a page in `folder` to a file, for HTML and Markdown, whatever its name is."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())


def hide_passwords(text: str, url: str = "") -> str:
    """Replaces the secrets of every URL in a text: passwords, tokens, and parameters with such names.

    Secrets of `url`, the URL that the text is about, are replaced anywhere: drivers quote parts of URLs.
    """
    for pattern, replacement in _HIDDEN:
        text = pattern.sub(replacement, text)
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets(url: str) -> set[str]:
    secrets: set[str] = set()
    if match := _AUTHORITY.match(url):
        web, user, password = match.groups()
        parts = [password or "", *(password or "").split("@"), user if web else ""]
        secrets.update(parts, map(unquote, parts))
    for value in re.findall(rf"[?&;][\w.%-]*{_SECRET}=([^&;#\s]+)", url, re.IGNORECASE):
        secrets.update((value, unquote(value)))
    return {secret for secret in secrets if len(secret) >= _SHORTEST}
