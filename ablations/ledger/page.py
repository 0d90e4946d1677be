"""The ledger as it is read: a table on the terminal, a page in Markdown, and a tidy CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from rich.console import Console

from ablations.common.files import refusals_explained, write_whole
from ablations.ledger.assess import Ledger
from ablations.ledger.evidence import study_outcome
from ablations.reporting.tables.render import markdown_table, print_table

_HEADERS = ("claim", "what is claimed", "source", "verdict", "evidence")
_COLUMNS = [
    "claim", "statement", "source", "verdict", "computed", "study", "storage", "study_verdict", "data", "model",
    "epochs", "treatment", "control", "n", "mean", "low", "high", "contrast", "reason", "at_scale",
]  # fmt: skip


def print_ledger(ledger: Ledger, console: Console) -> None:
    """Prints a row a claim, then what would settle those that are open, then the studies that are skipped."""
    print_table(console, _HEADERS, _rows(ledger), names=len(_HEADERS))
    open_claims = [assessment for assessment in ledger.assessments if assessment.command]
    commands = (f"To settle {assessment.claim.id}: {assessment.command}" for assessment in open_claims)
    for line in (*commands, *(f"Skipped: {skipped.sentence}" for skipped in ledger.skipped)):
        console.print(line, soft_wrap=True, markup=False)


def write_ledger(ledger: Ledger, folder: Path, margin: float, command: str) -> Sequence[Path]:
    """Writes `claims.md` and `claims.csv` into the folder of all results, which need not be there; returns the files.

    `margin` is the least difference in top-1 that matters, in points, and `command` what was typed.

    Raises:
        UsageError: if it cannot be written.
    """
    files = [folder / "claims.md", folder / "claims.csv"]
    with refusals_explained("results_dir", folder):
        write_whole(files[0], _page(ledger, margin, command))
        write_whole(files[1], ledger_frame(ledger).to_csv(index=False))
    return files


def ledger_frame(ledger: Ledger) -> pd.DataFrame:
    """Returns a row a claim, study and pair of networks; a claim of which no study says anything has one row."""
    rows: list[dict[str, object]] = []
    for assessment in ledger.assessments:
        claim = assessment.claim
        shared: dict[str, object] = {
            "claim": claim.id, "statement": claim.statement, "source": claim.source,
            "verdict": assessment.outcome.value, "computed": assessment.computed,
        }  # fmt: skip
        rows += [
            shared | asdict(evidence.seen) | {
                "study": name, "storage": store, "data": evidence.study.data, "epochs": evidence.study.epochs,
                "study_verdict": "" if claim.expects is None else study_outcome(claim, found).value,
                "model": evidence.treatment.model["name"], "treatment": evidence.treatment.name,
                "control": evidence.control.name if evidence.control else "", "contrast": evidence.verdict,
                "reason": evidence.reason, "at_scale": evidence.at_scale,
            }
            for (name, store), found in assessment.found.items()
            for evidence in found
        ] or [shared]  # fmt: skip
    return pd.DataFrame(rows, columns=_COLUMNS).astype({"epochs": "Int64", "n": "Int64"})  # whole, where there are any


def _rows(ledger: Ledger) -> list[list[str]]:
    return [
        [row.claim.id, row.claim.statement, row.claim.source, row.outcome.value, row.short_evidence]
        for row in ledger.assessments
    ]


def _page(ledger: Ledger, margin: float, command: str) -> str:
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
    for assessment in ledger.assessments:
        claim = assessment.claim
        lines += ["", f"## {claim.id}: {assessment.outcome.value}", "", f"{claim.statement} ({claim.source})."]
        lines += ["", f"Claimed at: {claim.scale.text}."] if claim.scale else []
        sentences = assessment.evidence or ["no stored study has its networks"]
        lines += ["", *(f"- {sentence}" for sentence in sentences)]
        settles = assessment.command
        lines += ["", "What would settle it:", "", "```", settles, "```"] if settles else []
    if ledger.skipped:
        lines += ["", "## Skipped studies", "", *(f"- {skipped.sentence}" for skipped in ledger.skipped)]
    return "\n".join([*lines, "", "## Made by", "", "```", command, "```", ""])
