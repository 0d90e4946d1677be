"""Notices before a report is made, which takes seconds."""

from __future__ import annotations

from collections.abc import Collection

WRITING_REPORT = "Writing the report: tables, figures and page."


def drawing_notice(names: Collection[str]) -> str:
    """Returns the notice before drawing only some figures."""
    return f"Drawing figures: {', '.join(names)}."
