"""Looking at a study before it is complete, without being wrong more often for it.

Replicates are added in batches, and after each one the study is looked at: what is decided gets no more. Whoever looks
often enough sees a difference where none is, so each look may spend a part of the 5 % only. With N replicates at most,
the look at n of them spends (n^2 - m^2) / N^2 of it, m being the look before: the quadratic member of Kim and DeMets's
family of spending functions (Biometrika 1987; Lan and DeMets 1983). A p is divided by what its look may spend, and a
contrast's p is the least of its looks. The sum of what may be spent is 1, so by Bonferroni's inequality this holds for
any test, at any number of replicates, and whatever makes a contrast stop: looks need not be independent, nor normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablations.stats.significance import ALPHA, can_decide

_GROWTH = 4 / 3  # of the replicates from look to look
_LEAST_BATCH = 3  # replicates between two looks


@dataclass(frozen=True)
class Looks:
    """When a study is looked at: the sizes are replicates, ascending; the last are the most that will be trained."""

    sizes: tuple[int, ...]

    def share(self, look: int) -> float:
        """Returns what the look of this number may spend of all errors; the shares of all looks add up to 1."""
        before = self.sizes[look - 1] if look else 0
        return (self.sizes[look] ** 2 - before**2) / self.sizes[-1] ** 2

    @classmethod
    def planned(cls, most: int, contrasts: int) -> Looks | None:
        """Plans looks: the first where the test can decide, the others after a third more replicates each.

        None where not even `most` replicates could decide so many contrasts.
        """
        first = next((n for n in range(2, most + 1) if can_decide(n, contrasts, ALPHA * (n / most) ** 2)), None)
        if first is None:
            return None
        sizes, following = [], first
        while following <= most - _LEAST_BATCH:
            sizes.append(following)
            following = max(following + _LEAST_BATCH, round(following * _GROWTH))
        return cls((*sizes, most))

    @classmethod
    def stored(cls, sizes: Sequence[int] | None) -> Looks | None:
        """Returns what a study remembers of its looks; None where it was not looked at so."""
        return cls(tuple(sizes)) if sizes else None
