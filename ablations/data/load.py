"""Loads the data set of a configuration."""

from __future__ import annotations

from rich.console import Console

from ablations.common.console import print_text
from ablations.common.files import user_path
from ablations.config import DataConfig, DigitsConfig, ImageTreeConfig, StoredConfig
from ablations.data.cache import decoded, default_folder
from ablations.data.cifar import CifarSource
from ablations.data.digits import draw_digits
from ablations.data.image_tree import ImageTreeSource
from ablations.data.images import Images
from ablations.data.source import DataError, Source, reading


def load_images(config: DataConfig, console: Console | None = None, *, fetch: bool = True) -> Images:
    """Loads the data set of a configuration.

    Args:
        console: displays the progress of slow steps.
        fetch: whether a missing data set may be downloaded.

    Raises:
        DataError: if the data set is not available, or images cannot be decoded.
        TypeError: if there is no loader for this class of configuration.
    """
    if isinstance(config, DigitsConfig):
        return draw_digits(config, int(config.seed))
    if not isinstance(config, StoredConfig):
        raise TypeError(f"no loader for {type(config).__name__}")
    folder = user_path("data.cache", config.cache) if config.cache else default_folder()
    console = console or Console()
    with reading():
        if isinstance(config, ImageTreeConfig):
            source: Source = ImageTreeSource(config)
        else:
            source = CifarSource(config, fetch=fetch)
    entry = decoded(source, folder, console)
    if entry.damaged:
        if not (isinstance(config, ImageTreeConfig) and config.skip_corrupt):
            reason = f"{entry.say_damaged()}; repair them, or skip them with data.skip_corrupt=true"
            raise DataError("data", config.name, reason)
        print_text(console, f"Skipped: {entry.say_damaged()}.")
    _check_classes(entry.images, config.name)
    return entry.images


def _check_classes(images: Images, name: str) -> None:
    """Checks that skipped images were not all images of a class."""
    for part, labels in (("training", images.train.labels), ("test", images.test.labels)):
        missing = sorted(set(range(len(images.classes))) - set(labels.tolist()))
        if missing:
            reason = f"no {part} image of class {images.classes[missing[0]]} can be decoded"
            raise DataError("data", name, reason)
