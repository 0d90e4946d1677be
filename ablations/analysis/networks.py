"""The networks of a study: their multiply-adds, and how the saved trained ones respond to test images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from ablations.analysis.observe import Observation, Sample, images_of_each_class, observe
from ablations.common.errors import UsageError
from ablations.common.process import keep_freed_memory
from ablations.common.settings import Settings
from ablations.common.sizes import SMALL_SIDE
from ablations.data import load_data
from ablations.data.augment import augmentation_of
from ablations.data.device import DeviceImages
from ablations.design import Split
from ablations.design.variants import Variant
from ablations.measure.complexity import count_operations
from ablations.storage.files import Weights
from ablations.training.learner import build_network

if TYPE_CHECKING:
    from ablations.analysis.study import StudyAnalysis

BUDGET = 4e11  # multiply-adds for observing all variants: some seconds on two cores
MOST = 1000  # images


def count_multiply_adds(network: Settings, classes: int, side: int) -> float:
    """Counts the multiply-adds of a forward pass for an image of `side` x `side` pixels, in the convention of papers.

    Large images are counted on the meta device. For small ones computing is faster than the meta device, which is
    implemented in Python and imports the compiler.
    """
    with torch.device("cpu" if side <= SMALL_SIDE else "meta"):
        model = build_network(network, classes, seed=0, fused="off").eval()
        return count_operations(model, torch.empty(1, 3, side, side)).multiply_adds


class TrainedNetworks:
    """A study's trained networks of the first replicate, on the CPU, with a sample of test images, for figures.

    `cells` are the finished cells with saved weights, by variant, in the order of the study. `unread` has the weights
    that could not be read, with the reasons.

    Raises:
        UsageError: if there are no saved weights, or (on access) if the images that they were trained on are missing.
    """

    def __init__(self, analysis: StudyAnalysis) -> None:
        self._analysis, self._weights = analysis, Weights(analysis.folder / "weights")
        design, finished = analysis.design, analysis.results.cells
        names = analysis.shown.intersection(finished.loc[finished["replicate"] == 0, "variant"])
        cells = [design.cell(variant, 0) for variant in design.variants if variant.name in names]
        self.cells = {cell.variant.name: cell for cell in cells if self._weights.path(cell).is_file()}
        self.unread: dict[str, str] = {}
        if not self.cells:
            folder = self._weights.folder
            reason = f"no weights are saved in {folder}; `run study=<another name> weights=first` saves them"
            raise UsageError("study", design.study, reason)

    @property
    def variants(self) -> list[Variant]:
        """The variants with saved weights, in the order of the study."""
        return [cell.variant for cell in self.cells.values()]

    def load(self, variant: Variant) -> nn.Module:
        """Builds a variant's network with its trained weights.

        Raises:
            UsageError: if the file cannot be read.
        """
        cell = self.cells[variant.name]
        try:
            return self._weights.load(cell)
        except (OSError, ValueError) as error:
            raise UsageError("weights", self._weights.path(cell), f"cannot be read ({error})") from None

    def loaded(self, variants: Sequence[Variant]) -> Iterator[tuple[Variant, nn.Module]]:
        """Yields the given variants that have readable weights, with their trained networks.

        Raises:
            ValueError: at the end, if none can be read.
        """
        is_empty = True
        for variant in variants:
            try:
                model = self.load(variant)
            except UsageError as error:
                self.unread[f"weights of {variant.name}"] = str(error)
            else:
                is_empty = False
                yield variant, model
        if is_empty:
            raise ValueError(f"no weights can be read: {'; '.join(self.unread.values())}")

    @cached_property
    def observations(self) -> dict[str, Observation]:
        """The observation of each network on the sample, by variant; without those whose weights cannot be read."""
        keep_freed_memory()
        loaded, sample = self.loaded(self.variants), self.sample
        return {variant.name: observe(model, variant.network, sample) for variant, model in loaded}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self._images.classes

    @cached_property
    def _images(self) -> DeviceImages:
        data, trained_on = self._analysis.config.data, self._analysis.attributes.get("data_fingerprint")
        loaded = load_data(data, fetch=False)
        if loaded.fingerprint != trained_on:
            reason = f"has fingerprint {loaded.fingerprint}; the study's networks were trained on {trained_on}"
            raise UsageError("data", data.name, reason)
        images = loaded.images(self._analysis.design.seed(0), Split.TEST)  # of the first replicate, as the networks
        augmentation = augmentation_of(data, images.train.pixels.shape[-1])
        return DeviceImages(images, torch.device("cpu"), augmentation, memory="mapped")

    @cached_property
    def sample(self) -> Sample:
        """As many test images as every variant can process in seconds, the same number of each class."""
        cost = sum(self._analysis.multiply_adds[name] for name in self.cells)
        allowed = int(min(MOST, BUDGET / max(cost, 1.0)))
        return images_of_each_class(self._images, max(1, allowed // len(self.classes)))
