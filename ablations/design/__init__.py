"""From a sweep to its variants and from variants to cells: what is trained, and what makes two cells the same."""

from ablations.design.design import Cell, Design, make_design, protocol_differences

__all__ = ["Cell", "Design", "make_design", "protocol_differences"]
