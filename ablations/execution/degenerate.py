"""Detects degenerate modules before training: `plan` lists them, `run` rejects them, a search skips them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from ablations.common.errors import UsageError
from ablations.common.wording import count
from ablations.config import Config
from ablations.design.variants import Variant
from ablations.reporting.text.degenerate import degenerate_clauses

if TYPE_CHECKING:  # this module imports torch
    from ablations.measure.degenerate import DegeneracyProbe

_REFUSE = "refuse"


class DegeneracyCheck:
    """Checks each distinct module of a study's variants for degeneracy."""

    def __init__(self, config: Config) -> None:
        self._refuses, self._side = config.degenerate == _REFUSE, config.data.side

    @cached_property
    def _probe(self) -> DegeneracyProbe:
        from ablations.measure.degenerate import DegeneracyProbe

        return DegeneracyProbe(self._side)

    def sentences(self, variants: Iterable[Variant]) -> list[str]:
        """Returns a sentence per degenerate module and one on how `run` treats them; empty without such modules."""
        clauses = degenerate_clauses(self._probe.find(variants))
        if not clauses:
            return []
        ending = "does not train them unless degenerate=warn is set" if self._refuses else "trains them anyway"
        return [*(f"Degenerate: {clause}." for clause in clauses), f"`run` {ending}."]

    def check(self, variants: Iterable[Variant]) -> list[str]:
        """Returns a sentence for each degenerate module, for `degenerate=warn`.

        Raises:
            UsageError: if `degenerate=refuse`; the message lists all degenerate modules.
        """
        modules = self._probe.find(variants)
        clauses = degenerate_clauses(modules)
        if modules and self._refuses:
            number = count(len({module.variant for module in modules}), "variant has", "variants have")
            listed = "".join(f"\n  {clause}" for clause in clauses)
            reason = f"{number} degenerate modules; to train them anyway, set degenerate=warn:{listed}"
            raise UsageError("degenerate", _REFUSE, reason)
        return [f"Degenerate: {clause}." for clause in clauses]

    def refusal_of(self, variant: Variant) -> str:
        """Returns why a variant is rejected: its first degenerate module; empty if the variant is accepted."""
        return next(iter(degenerate_clauses(self._probe.find([variant]))), "") if self._refuses else ""
