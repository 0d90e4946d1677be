"""Output of the ledger: a table on the terminal, a Markdown page and a tidy CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from ablations.common.console import print_path, print_text
from ablations.common.files import refusals_explained, write_whole
from ablations.common.parts import RAISE, TRACEBACKS, Parts
from ablations.ledger.assess import Assessment, Ledger
from ablations.ledger.evidence import Evidence
from ablations.reporting.tables.render import markdown_table, print_table
from ablations.reporting.text.markdown import code_block, markdown_text
from ablations.reporting.text.not_made import not_made_lines

CLAIMS_TRACEBACKS = f"claims-{TRACEBACKS}"
_HEADERS = ("claim", "what is claimed", "rule", "studies", "verdict", "evidence")
_SENTENCES = ("what is claimed", "rule", "verdict", "evidence")
_PAGE_HEADERS = ("claim", "what is claimed", "source", "rule", "studies that count", "verdict")
_COLUMNS = [
    "claim", "statement", "source", "rule", "margin", "verdict", "computed", "studies", "storage", "number_of_studies",
    "data", "model", "epochs", "decay", "treatment", "control", "published", "n", "without_result", "mean", "low",
    "high", "level", "comparisons", "detectable", "counts", "outcome", "reason",
]  # fmt: skip
_WHOLE = ("epochs", "n", "without_result", "number_of_studies", "comparisons")  # nullable integers


def print_ledger(ledger: Ledger, console: Console, parts: Parts = RAISE) -> None:
    """Prints one row per claim, then the commands that would settle open claims, then the skipped studies."""
    rows = [parts.make(f"row of claim {one.claim.id}", None, _row, one) for one in ledger.assessments]
    print_table(console, _HEADERS, [row for row in rows if row], sentences=_SENTENCES)
    open_claims = [assessment for assessment in ledger.assessments if assessment.command]
    for assessment in open_claims:
        print_path(console, f"To settle {assessment.claim.id}", assessment.command)
    print_text(console, *(f"Skipped: {skipped.sentence}" for skipped in ledger.skipped))


def write_ledger(ledger: Ledger, folder: Path, command: str, parts: Parts = RAISE) -> Sequence[Path]:
    """Writes `claims.md` and `claims.csv` to `folder`, creating it if needed; returns the files.

    `command` is the command line as typed. Failures are recorded in `parts`.

    Raises:
        UsageError: if `claims.md` cannot be written.
    """
    table = parts.make("table claims.csv", [], _write_frame, ledger, folder / "claims.csv")
    page = folder / "claims.md"
    with refusals_explained("results_dir", folder):
        write_whole(page, _page(ledger, command, parts))
    return [page, *table]


def _write_frame(ledger: Ledger, path: Path) -> list[Path]:
    write_whole(path, ledger_frame(ledger).to_csv(index=False))
    return [path]


def ledger_frame(ledger: Ledger) -> pd.DataFrame:
    """Returns one row per claim and comparison; a claim without evidence has one row.

    `mean`, `low` and `high` are in points if there is a control, otherwise in percent; `level` is the individual
    confidence level in (0, 1), `comparisons` the number of comparisons that share the claim's error rate, and
    `detectable` the minimum detectable effect in points at 80 % power.
    """
    rows: list[dict[str, object]] = []
    for assessment in ledger.assessments:
        claim = assessment.claim
        shared: dict[str, object] = {
            "claim": claim.id, "statement": claim.statement, "source": claim.source, "rule": claim.rule,
            "margin": claim.margin or None, "verdict": assessment.outcome.value, "computed": assessment.computed,
        }  # fmt: skip
        rows += [shared | _columns(evidence) for evidence in assessment.found] or [shared]
    return pd.DataFrame(rows, columns=_COLUMNS).astype(dict.fromkeys(_WHOLE, "Int64"))


def _columns(evidence: Evidence) -> dict[str, object]:
    comparison, seen = evidence.comparison, evidence.seen
    study = comparison.studies[0]
    return {
        "studies": "; ".join(study.name for study in comparison.studies),
        "storage": "; ".join(study.store for study in comparison.studies),
        "number_of_studies": len(comparison.studies), "data": study.data, "epochs": study.epochs, "decay": study.decay,
        "model": comparison.treatment.model["name"], "treatment": comparison.treatment.name,
        "control": comparison.control.name if comparison.control else "", "published": evidence.published,
        "n": seen.n, "without_result": len(comparison.dropped), "mean": seen.mean, "low": seen.low, "high": seen.high,
        "level": evidence.level, "comparisons": evidence.family, "detectable": evidence.detectable,
        "counts": evidence.outcome is not None, "outcome": evidence.outcome.value if evidence.outcome else "",
        "reason": "; ".join(filter(None, (evidence.ignored or evidence.reason, *evidence.notes))),
    }  # fmt: skip


def _row(assessment: Assessment) -> list[str]:
    return [*_common(assessment), assessment.short_evidence]


def _page_row(assessment: Assessment) -> list[str]:
    name, statement, *others = _common(assessment)
    return [name, statement, assessment.claim.source, *others]


def _common(assessment: Assessment) -> list[str]:
    claim, studies = assessment.claim, "" if assessment.claim.expects is None else str(assessment.studies)
    return [claim.id, claim.statement, claim.rule, studies, assessment.outcome.value]


def _page(ledger: Ledger, command: str, parts: Parts) -> str:
    sections = [parts.make(f"section of claim {one.claim.id}", [], _section, one) for one in ledger.assessments]
    rows = [parts.make(f"row of claim {one.claim.id}", None, _page_row, one) for one in ledger.assessments]
    lines = [
        "# Published claims",
        "",
        *not_made_lines(parts, CLAIMS_TRACEBACKS),
        "Published statements about shuffle attention, each with its verdict. Claims about the module are computed "
        "when this page is written. Claims about trained networks are evaluated with all stored studies whose "
        "networks differ only in the claimed property, each by the rule and margin declared for the claim. "
        "Replicates of the same networks under the same protocol are pooled over studies, and each seed counts once. "
        "If several comparisons are eligible, they share the error rate of 5 % (Bonferroni). Studies on synthetic "
        "images, and studies at a different scale than the claim's, are not eligible. Intervals assume that means of "
        "replicates are approximately normal. The minimum detectable effect of an undecided comparison is the smallest "
        "true difference, from 0 or from the claimed number, that a two-sided test at its error rate detects with 80 % "
        "power.",
        "",
        *markdown_table(_PAGE_HEADERS, [row for row in rows if row]),
        *(line for section in sections for line in section),
    ]
    if ledger.skipped:
        lines += ["", "## Skipped studies", "", *(f"- {markdown_text(skipped.sentence)}" for skipped in ledger.skipped)]
    return "\n".join([*lines, "", "## Command", "", *code_block(command), ""])


def _section(assessment: Assessment) -> list[str]:
    claim, settles = assessment.claim, assessment.command
    lines = ["", f"## {claim.id}: {assessment.outcome.value}", ""]
    lines += [markdown_text(f"{claim.statement} ({claim.source}).")]
    lines += ["", markdown_text(f"Claimed at: {claim.scale.text}.")] if claim.scale else []
    for sentence in (claim.decay_sentence, claim.rule_in_full, assessment.family_sentence):
        lines += ["", markdown_text(sentence)] if sentence else []
    lines += [
        "",
        *(f"- {markdown_text(sentence)}" for sentence in assessment.evidence or ["no stored study has its networks"]),
    ]
    return lines + (["", "Command that would settle it:", "", *code_block(settles)] if settles else [])
