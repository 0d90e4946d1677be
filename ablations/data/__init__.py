"""Data sets, as uint8 images in memory, and their batches on the device."""

from __future__ import annotations

from ablations.config import DataConfig, DigitsConfig
from ablations.data.digits import make_digits
from ablations.data.images import Images


def load_images(config: DataConfig) -> Images:
    """Loads the data set that `config` describes.

    Raises:
        TypeError: if there is no loader for this kind of configuration.
    """
    if isinstance(config, DigitsConfig):
        return make_digits(config.train_images, config.test_images, config.clutter, config.noise, config.seed)
    raise TypeError(f"no loader for {type(config).__name__}")
