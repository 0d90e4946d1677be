"""The design of a study: the variants of a sweep, their cells, and the identity of cells."""

from ablations.design.cells import Cell, Design, Split
from ablations.design.enumerate import make_design
from ablations.design.protocol import protocol_differences

__all__ = ["Cell", "Design", "Split", "make_design", "protocol_differences"]
