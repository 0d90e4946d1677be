"""`python -m ablations.claims`: the ledger of published claims, from what is computed and stored; trains nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ablations import cli

if TYPE_CHECKING:
    from pathlib import Path

    from ablations.config import Config
    from ablations.ledger.assess import Ledger

PURPOSE = "Says which published claims hold, from what can be computed and from every study that is stored."

_HEADERS = ("claim", "what is claimed", "source", "verdict", "evidence")


def claims(config: Config, command: str) -> int:
    """Assesses every claim, prints and writes the ledger; returns 0."""
    from ablations.execution.progress import make_console
    from ablations.ledger.assess import assess
    from ablations.reporting.tables.render import print_table
    from ablations.storage.folder import results_folder, storage_url

    folder = results_folder(config)
    urls = [storage_url(config), f"sqlite:///{folder / 'reference' / 'optuna.db'}"]  # one's own, and the committed one
    ledger = assess(urls, config.sweep.margin)
    files = _write(ledger, folder, config.sweep.margin, command)
    console = make_console()
    print_table(console, _HEADERS, _rows(ledger), names=len(_HEADERS))
    for line in (*_commands(ledger), *_skipped(ledger)):
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"Ledger:     {', '.join(map(str, files))}", soft_wrap=True, markup=False)
    return 0


def _rows(ledger: Ledger) -> list[list[str]]:
    return [
        [one.claim.id, one.claim.statement, one.claim.source, one.outcome.value, one.short_evidence]
        for one in ledger.assessments
    ]


def _commands(ledger: Ledger) -> list[str]:
    return [f"To settle {one.claim.id}: {one.command}" for one in ledger.assessments if one.command]


def _skipped(ledger: Ledger) -> list[str]:
    return [f"Skipped: {line}" for line in ledger.skipped]


def _write(ledger: Ledger, folder: Path, margin: float, command: str) -> Sequence[Path]:
    """Writes `claims.md` and `claims.csv` into a folder that need not be there.

    Raises:
        UsageError: if it cannot be written.
    """
    from ablations.common.files import refusals_explained, write_whole
    from ablations.ledger.assess import ledger_frame

    files = [folder / "claims.md", folder / "claims.csv"]
    with refusals_explained("results_dir", folder):
        write_whole(files[0], _page(ledger, margin, command))
        write_whole(files[1], ledger_frame(ledger).to_csv(index=False))
    return files


def _page(ledger: Ledger, margin: float, command: str) -> str:
    from ablations.reporting.tables.render import markdown_table

    lines = [
        "# Ledger of claims",
        "",
        "What is said of shuffle attention, and what became of it. Claims about the module are computed when this page "
        "is made. Claims about trained networks are judged by every stored study that has networks which are equal but "
        f"for what is claimed about, with a margin of {margin:g} points; a claim that was made at a scale is decided "
        "at that scale alone.",
        "",
        *markdown_table(_HEADERS[:-1], [row[:-1] for row in _rows(ledger)]),
    ]
    for one in ledger.assessments:
        scale = one.claim.scale
        lines += ["", f"## {one.claim.id}: {one.outcome.value}", "", f"{one.claim.statement} ({one.claim.source})."]
        lines += ["", f"Claimed at: {scale.text}."] if scale else []
        lines += ["", *(f"- {sentence}" for sentence in one.evidence or ["no stored study has its networks"])]
        lines += ["", "What would settle it:", "", "```", one.command, "```"] if one.command else []
    if ledger.skipped:
        lines += ["", "## Skipped studies", "", *(f"- {line}" for line in ledger.skipped)]
    return "\n".join([*lines, "", "## Made by", "", "```", command, "```", ""])


if __name__ == "__main__":
    sys.exit(cli.main("claims", PURPOSE, claims))
