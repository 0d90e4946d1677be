"""From a sweep to its variants and from variants to cells: what is trained, and what makes two cells the same."""

from ablations.design.cells import Cell, Design, Split
from ablations.design.enumerate import make_design
from ablations.design.protocol import protocol_differences

__all__ = ["Cell", "Design", "Split", "make_design", "protocol_differences"]
