"""Data sets, as uint8 images in memory, and their batches on the device."""
