"""The ledger as it stands: every claim with its verdict and the evidence, from what is computed and what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablations.ledger.declared import CLAIMS, Claim, Outcome, joined
from ablations.ledger.evidence import Evidence, evidence_of, study_outcome
from ablations.ledger.stored import Skipped, stored_studies
from ablations.ledger.structural import CHECKS

_SHOWN = 3  # pieces of evidence in a table


@dataclass(frozen=True)
class Assessment:
    """A claim, its verdict, and why.

    `computed` is what was counted, compared or built, empty of a claim about trained networks; `found` is what each
    study says that has something to say, by its name and store.
    """

    claim: Claim
    outcome: Outcome
    computed: str
    found: Mapping[tuple[str, str], Sequence[Evidence]]

    @property
    def evidence(self) -> list[str]:
        """What the verdict rests on, a sentence each."""
        sentences = [evidence.sentence for of_study in self.found.values() for evidence in of_study]
        return [self.computed, *sentences] if self.computed else sentences

    @property
    def short_evidence(self) -> str:
        """The same in short: where there is much, what says most."""
        ranked = sorted(
            (evidence for of_study in self.found.values() for evidence in of_study),
            key=lambda evidence: (not evidence.at_scale, evidence.outcome is Outcome.UNDECIDED, -evidence.seen.n),
        )
        parts = [self.computed] if self.computed else []
        for evidence in ranked[:_SHOWN]:
            verdict = f", {evidence.verdict}" if evidence.verdict else ""
            parts.append(f"{evidence.study.name}: {evidence.names} {evidence.value}, n = {evidence.seen.n}{verdict}")
        if len(ranked) > _SHOWN:
            parts.append(f"{len(ranked) - _SHOWN} more in claims.md")
        return "; ".join(parts)

    @property
    def command(self) -> str:
        """What would settle the claim; empty where it is settled."""
        return "" if self.outcome.is_settled else self.claim.command


@dataclass(frozen=True)
class Ledger:
    """All claims, and the stored studies that are no evidence."""

    assessments: tuple[Assessment, ...]
    skipped: tuple[Skipped, ...]


def assess(urls: Sequence[str], margin: float) -> Ledger:
    """Assesses every claim by the studies of some databases; `margin` is the least difference in points that matters.

    Raises:
        StorageError: if a database does not answer.
    """
    studies, skipped = stored_studies(urls)
    assessments = []
    for claim in CLAIMS:
        by_study = {(study.name, study.store): evidence_of(claim, study, margin) for study in studies}
        found = {key: of_study for key, of_study in by_study.items() if of_study}
        if claim.id in CHECKS:
            outcome, computed = CHECKS[claim.id](claim)
        else:
            outcome, computed = joined(study_outcome(claim, of_study) for of_study in found.values()), ""
        assessments.append(Assessment(claim, outcome, computed, found))
    return Ledger(tuple(assessments), tuple(skipped))
