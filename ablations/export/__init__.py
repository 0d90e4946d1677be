"""Results for other programs, in `<study>/export`: tables, TensorBoard, Weights & Biases, model cards.

Importing this package does not import the libraries that write them.
"""

from ablations.export.export import check_exports, export_study

__all__ = ["check_exports", "export_study"]
