"""The ledger as it stands: every claim with its verdict and the evidence, from what is computed and what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ablations.ledger.declared import CLAIMS, Claim, Outcome, joined
from ablations.ledger.structural import CHECKS
from ablations.ledger.studied import Evidence, evidence_of, stored_studies, study_outcome

_SHOWN = 3  # pieces of evidence in a table


@dataclass(frozen=True)
class Assessment:
    """A claim, what it comes to, and why.

    Args:
        claim: the claim.
        outcome: its verdict.
        computed: what was counted, compared or built; empty of a claim about trained networks.
        found: what each study says that has something to say, by its name and store.
    """

    claim: Claim
    outcome: Outcome
    computed: str
    found: Mapping[tuple[str, str], Sequence[Evidence]]

    @property
    def evidence(self) -> list[str]:
        """What the verdict rests on, a sentence each."""
        sentences = [one.sentence for found in self.found.values() for one in found]
        return [self.computed, *sentences] if self.computed else sentences

    @property
    def short_evidence(self) -> str:
        """The same in short: where there is much, what says most."""
        found = sorted(
            (one for own in self.found.values() for one in own),
            key=lambda one: (not one.at_scale, one.outcome is Outcome.UNDECIDED, -one.seen.n),
        )
        shown = [
            f"{one.study.name}: {one.names} {one.value}, n = {one.seen.n}" + (f", {one.verdict}" if one.verdict else "")
            for one in found[:_SHOWN]
        ]
        more = [f"{len(found) - _SHOWN} more in claims.md"] if len(found) > _SHOWN else []
        return "; ".join(([self.computed] if self.computed else []) + shown + more)

    @property
    def command(self) -> str:
        """What would settle the claim; empty where it is settled."""
        return "" if self.outcome.is_settled else self.claim.command


@dataclass(frozen=True)
class Ledger:
    """All claims, and the stored studies that could not be read, each with the reason."""

    assessments: tuple[Assessment, ...]
    skipped: tuple[str, ...]


def assess(urls: Sequence[str], margin: float) -> Ledger:
    """Assesses every claim.

    Args:
        urls: of the databases whose studies are read, as `stored_studies` takes them.
        margin: the least difference in top-1 that matters, in points.

    Raises:
        UsageError: if a database does not answer.
    """
    studies, skipped = stored_studies(urls)
    assessments = []
    for claim in CLAIMS:
        found = {(study.name, study.store): made for study in studies if (made := evidence_of(claim, study, margin))}
        if claim.id in CHECKS:
            outcome, computed = CHECKS[claim.id](claim)
        else:
            outcome, computed = joined(study_outcome(claim, made) for made in found.values()), ""
        assessments.append(Assessment(claim, outcome, computed, found))
    return Ledger(tuple(assessments), tuple(skipped))


def ledger_frame(ledger: Ledger) -> pd.DataFrame:
    """Returns a row a claim, study and pair of networks; a claim of which no study says anything has one row."""
    rows: list[dict[str, object]] = []
    for one in ledger.assessments:
        claim: dict[str, object] = {
            "claim": one.claim.id,
            "statement": one.claim.statement,
            "source": one.claim.source,
            "verdict": one.outcome.value,
            "computed": one.computed,
        }
        rows += [
            claim
            | {
                "study": name,
                "storage": store,
                "study_verdict": "" if one.claim.expects is None else study_outcome(one.claim, found).value,
                "data": piece.study.data,
                "model": piece.model,
                "epochs": piece.study.epochs,
                "treatment": piece.treatment,
                "control": piece.control,
                "n": piece.seen.n,
                "mean": piece.seen.mean,
                "low": piece.seen.low,
                "high": piece.seen.high,
                "contrast": piece.verdict,
                "reason": piece.reason,
                "at_scale": piece.at_scale,
            }
            for (name, store), found in one.found.items()
            for piece in found
        ] or [claim]
    return pd.DataFrame(rows, columns=_COLUMNS).astype({"epochs": "Int64", "n": "Int64"})  # whole, where there are any


_COLUMNS = [
    "claim", "statement", "source", "verdict", "computed", "study", "storage", "study_verdict", "data", "model",
    "epochs", "treatment", "control", "n", "mean", "low", "high", "contrast", "reason", "at_scale",
]  # fmt: skip
