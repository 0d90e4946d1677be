"""The ledger: every claim with its verdict and its evidence from computations and stored studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablations.common.parts import RAISE, Parts
from ablations.common.wording import count
from ablations.ledger.declared import CLAIMS, Claim, Outcome
from ablations.ledger.evidence import Evidence, evidence_of, level_text
from ablations.ledger.rules import concluded, level, share_of
from ablations.ledger.stored import Skipped, Study, stored_studies
from ablations.ledger.structural import CHECKS

_SHOWN = 3  # pieces of evidence in a table


@dataclass(frozen=True)
class Assessment:
    """A claim with its verdict and evidence.

    `computed` describes the computation, empty for a claim about trained networks; `found` is the evidence of stored
    networks.
    """

    claim: Claim
    outcome: Outcome
    computed: str
    found: Sequence[Evidence]

    @property
    def studies(self) -> int:
        """The number of stored studies with eligible comparisons."""
        return len({(study.name, study.store) for one in self.found if one.outcome for study in one.comparison.studies})

    @property
    def evidence(self) -> list[str]:
        """The evidence, one sentence per item."""
        sentences = [evidence.sentence for evidence in self.found]
        return [self.computed, *sentences] if self.computed else sentences

    @property
    def family_sentence(self) -> str:
        """The number of decided comparisons and the levels of their intervals; empty if none is eligible."""
        counted = [one for one in self.found if one.outcome]
        if not counted:
            return ""
        decided, family = sum(one.outcome.is_settled for one in counted if one.outcome), counted[0].family
        together, by_itself = (level_text(level(self.claim.expects, share_of(number))) for number in (1, family))
        shared = f", so that they hold simultaneously at {together}" if family > 1 else ""
        return (
            f"Eligible comparisons: {family}, from {count(self.studies, 'study', 'studies')}; decided: {decided}. "
            f"Each interval is at {by_itself} or more{shared}."
        )

    @property
    def short_evidence(self) -> str:
        """The strongest evidence, shortened for a table."""
        ranked = sorted(
            self.found,
            key=lambda one: (one.outcome is None, one.outcome is Outcome.UNDECIDED, -one.seen.n),
        )
        parts = [self.computed] if self.computed else []
        for one in ranked[:_SHOWN]:
            verdict = one.ignored or (one.outcome.value if one.outcome else "")
            parts.append(
                f"{one.studies}: {one.names} {one.value}, n = {one.seen.n}" + (f", {verdict}" if verdict else "")
            )
        if len(ranked) > _SHOWN:
            parts.append(f"{len(ranked) - _SHOWN} more in claims.md")
        return "; ".join(parts)

    @property
    def command(self) -> str:
        """The command that would settle the claim; empty if it is settled."""
        return "" if self.outcome.is_settled else self.claim.command


@dataclass(frozen=True)
class Ledger:
    """All assessed claims, and the stored studies that are not evidence."""

    assessments: tuple[Assessment, ...]
    skipped: tuple[Skipped, ...]


def assess(urls: Sequence[str], parts: Parts = RAISE) -> Ledger:
    """Assesses every claim with the studies of some databases; a replicate in several of them counts in the first.

    Claims that cannot be assessed and studies that cannot be read are recorded in `parts`.

    Raises:
        StorageError: if a database cannot be reached.
    """
    studies, skipped = stored_studies(urls)
    for one in skipped:
        if one.error is not None:
            parts.add(f"study {one.name} in {one.store}", one.error)
    found = (parts.make(f"claim {claim.id}", None, assessment_of, claim, studies) for claim in CLAIMS)
    return Ledger(tuple(assessment for assessment in found if assessment), tuple(skipped))


def assessment_of(claim: Claim, studies: Sequence[Study]) -> Assessment:
    """Assesses a claim by its computation if it has one, otherwise by stored studies."""
    found = evidence_of(claim, studies)
    if claim.id in CHECKS:
        outcome, computed = CHECKS[claim.id](claim)
        return Assessment(claim, outcome, computed, found)
    parts = {
        part: [one.outcome for one in found if one.comparison.part == part and one.outcome]
        for part in range(claim.parts)
    }
    outcome = concluded(parts)
    if outcome is Outcome.NOT_RUN and found:  # evidence only at other scales
        outcome = Outcome.UNDECIDED
    return Assessment(claim, outcome, "", found)
