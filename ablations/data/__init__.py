"""Data sets as uint8 images in memory or memory-mapped from disk, and their batches on the device."""

from ablations.data.load import load_images
from ablations.data.source import DataError
from ablations.data.splits import DataSet, load_data

__all__ = ["DataError", "DataSet", "load_data", "load_images"]
