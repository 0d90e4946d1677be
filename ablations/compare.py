"""`python -m ablations.compare STUDY STUDY ...`: compares stored studies of two protocols, machines or commits."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ablations import cli

PURPOSE = "Compares stored studies (two protocols, machines or commits): verdicts, cells, options; trains nothing."


def compare(words: Sequence[str], command: str) -> int:
    """Writes and prints a comparison of stored studies; returns 0, or 1 if a part cannot be made."""
    from ablations.analysis.comparison import load_comparison
    from ablations.common.console import make_console
    from ablations.common.parts import Parts

    comparison = load_comparison(*words)
    from ablations.reporting.comparison import report_comparison

    parts = Parts()
    report_comparison(comparison, command, make_console(), parts)
    return 1 if parts.missing else 0


if __name__ == "__main__":
    sys.exit(cli.main("compare", PURPOSE, act_on_stored=compare))
