"""The texts of an HTML page by element."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "br", "hr", "input", "circle", "line", "rect", "path"}


class Texts(HTMLParser):
    """Collects the text of each element; fails if elements are not properly nested.

    Attributes:
        found: tag, attributes and text of each element, in the order of their end tags.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str], str]] = []
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self._open.append((tag, {name: value or "" for name, value in attrs}, []))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        name, attributes, pieces = self._open.pop()
        assert name == tag
        self.found.append((tag, attributes, "".join(pieces)))

    def handle_data(self, data: str) -> None:
        for _, _, pieces in self._open:
            pieces.append(data)

    def of(self, tag: str, **attributes: str) -> list[str]:
        """Returns the texts of all elements with this tag and these attributes."""
        required = {name.rstrip("_"): value for name, value in attributes.items()}
        return [text for name, actual, text in self.found if name == tag and required.items() <= actual.items()]
