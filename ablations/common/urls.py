"""URLs fit to be shown: in messages, reports and stores that other people read, secrets are three asterisks."""

from __future__ import annotations

import re
from urllib.parse import unquote

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
