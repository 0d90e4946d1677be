from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ablations.analysis.networks import TrainedNetworks
from ablations.config import DigitsConfig
from ablations.data import load_images
from ablations.reporting.figures.cams import Cams, cams_of, class_activation_maps, draw_cams, focus, last_map
from tests.builders.drawings import LONG, SHORT, STRANGE, UNBROKEN, cut, overlapping, words, written
from tests.builders.kept import trained
from tests.builders.networks import hooks_of, random_network, variant_of

RIVALS = ("sweep=rivals", "attention.groups=4", "sweep.factors.attention=[sa,se,eca,gc,sge,cbam]")


def grad_cam(model: nn.Module, layer: str, pixels: Tensor, labels: Sequence[int]) -> NDArray[np.float64]:
    """Selvaraju et al. 2017, equations 1 and 2, in float64, scaled to 0 to 1 and bilinearly to the image's size."""
    twin = copy.deepcopy(model).double()
    maps: list[Tensor] = []
    handle = twin.get_submodule(layer).register_forward_hook(lambda _module, _given, made: maps.append(made))
    found = []
    for image, label in zip(pixels.double(), labels, strict=True):
        maps.clear()
        logits = twin(image[None])
        (gradient,) = torch.autograd.grad(logits[0, label], maps[0])
        importance = gradient.mean((2, 3), keepdim=True)
        cam = (importance * maps[0]).sum(1, keepdim=True).relu()
        cam = _to_unit(cam)
        found.append(_to_unit(F.interpolate(cam, image.shape[1:], mode="bilinear", align_corners=False))[0, 0])
    handle.remove()
    return torch.stack(found).detach().numpy()


def _to_unit(cam: Tensor) -> Tensor:
    cam = cam - cam.min()
    return cam / (cam.max() + 1e-7)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> TrainedNetworks:
    return trained(tmp_path_factory.mktemp("rivals"), *RIVALS)


@pytest.fixture(scope="module")
def made(networks: TrainedNetworks) -> Cams:
    return cams_of(networks)


LAST = [
    ("resnet8", 32, "layer3"),
    ("resnet20", 32, "layer3"),
    ("resnet18", 64, "layer4"),
    ("timm/resnet26", 64, "layer4"),
    ("shufflenet_v2_x0_5", 64, "conv5"),
]


@pytest.mark.parametrize(("name", "side", "layer"), LAST)
def test_the_last_map_is_the_end_of_the_last_stage(name: str, side: int, layer: str) -> None:
    model = random_network(variant_of(name, groups=2).network)
    found = last_map(model, torch.zeros(1, 3, side, side))
    assert found is model.get_submodule(layer)
    assert hooks_of(model) == 0


@pytest.mark.parametrize(("name", "side", "layer"), LAST)
def test_maps_agree_with_an_explicit_implementation_of_grad_cam(name: str, side: int, layer: str) -> None:
    model = random_network(variant_of(name, groups=2).network)
    pixels = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 7, 7])
    maps, probabilities = class_activation_maps(model, pixels, labels)
    assert maps.shape == (3, side, side)
    assert maps.dtype == np.float32
    expected = grad_cam(model, layer, pixels, labels.tolist())
    assert expected.max() > 0.9  # not all maps are 0
    assert np.abs(maps - expected).max() < 2e-3
    with torch.no_grad():
        chances = copy.deepcopy(model).double()(pixels.double()).softmax(1).numpy()
    assert np.abs(probabilities - chances).max() < 1e-4
    assert hooks_of(model) == 0


def test_an_image_s_map_does_not_depend_on_the_others() -> None:
    model = random_network(variant_of(groups=2).network)
    pixels, labels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    together, _ = class_activation_maps(model, pixels, labels)
    for image in range(4):
        alone, _ = class_activation_maps(model, pixels[image : image + 1], labels[image : image + 1])
        assert np.abs(alone[0] - together[image]).max() < 1e-3


@pytest.mark.parametrize(
    ("cam", "share"),
    [
        ([[1.0, 0.0], [0.0, 0.0]], 0.25),
        ([[1.0, 1.0], [1.0, 1.0]], 0.5),
        ([[1.0, 0.5], [0.25, 0.25]], 0.25),  # 1 is half of 2
        ([[0.9, 0.6], [0.3, 0.2]], 0.5),
        ([[0.0, 0.0], [0.0, 0.0]], math.nan),
    ],
)
def test_focus_is_the_share_of_pixels_with_half_of_the_sum(cam: list[list[float]], share: float) -> None:
    assert focus(np.array(cam, dtype=np.float32)) == pytest.approx(share, nan_ok=True)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_focus_agrees_with_summing_the_largest_pixels(pixels: list[int]) -> None:
    needed, total = 0, 0
    for value in sorted(pixels, reverse=True):
        if 2 * total >= sum(pixels):
            break
        total, needed = total + value, needed + 1
    found = focus(np.array([pixels], dtype=np.float32))
    assert found == (needed / len(pixels)) if sum(pixels) else math.isnan(found)


def test_images_are_the_first_of_their_class_in_the_test_set(made: Cams, networks: TrainedNetworks) -> None:
    test = load_images(DigitsConfig(train_images=20, test_images=160)).test
    shown = made.frame.drop_duplicates("image")["class"].tolist()
    assert shown == ["0", "2", "4", "7", "9"]  # equally spaced
    for image, name in enumerate(shown):
        first = test.labels.tolist().index(networks.classes.index(name))
        assert (made.images[image] == test.pixels[first].transpose(1, 2, 0)).all()


def test_the_frame_has_each_networks_prediction(made: Cams, networks: TrainedNetworks) -> None:
    assert list(made.maps) == ["none", "sa", "se", "eca", "gc", "sge"]
    assert made.left_out == 1
    assert len(made.frame) == 30
    sample = networks.sample
    for variant in networks.variants[:6]:
        logits = networks.observations[variant.name].logits.astype(np.float64)
        own = made.frame[made.frame["variant"] == variant.name]
        model = networks.load(variant)
        assert made.maps[variant.name].shape == (5, 20, 20)
        for row in own.to_dict("records"):
            label = int(row["class"])
            place = sample.labels.tolist().index(label)
            chances = np.exp(logits[place]) / np.exp(logits[place]).sum()
            assert row["probability"] == pytest.approx(chances[label], abs=1e-5)
            assert row["taken_for"] == str(logits[place].argmax())
            cam = made.maps[variant.name][row["image"]]
            assert row["focus"] == pytest.approx(focus(cam), nan_ok=True)
            expected = grad_cam(model, "layer3", sample.pixels[place : place + 1], [label])[0]
            assert np.abs(cam - expected).max() < 2e-3


def cams(variants: Sequence[str], classes: Sequence[str], left_out: int = 0, side: int = 32) -> Cams:
    random = np.random.default_rng(0)
    rows = [
        {"image": image, "class": name, "variant": variant, "taken_for": classes[(image + wrong) % len(classes)]}
        | {"probability": (0.0, 1.0)[wrong], "focus": 0.1}
        for image, name in enumerate(classes)
        for wrong, variant in zip([0, 1] * 6, variants, strict=False)
    ]
    images = random.integers(0, 255, (len(classes), side, side, 3)).astype(np.uint8)
    maps = {name: random.random((len(classes), side, side)).astype(np.float32) for name in variants}
    return Cams(pd.DataFrame(rows), images, maps, left_out)


def test_the_figure_shows_images_maps_and_answers() -> None:
    shown = cams(["none", "sa"], ["cat", "dog", "fox"], left_out=2)
    drawn = draw_cams(shown, "Caption.")
    assert len(drawn.axes) == 9
    for image in range(3):
        own = drawn.axes[3 * image : 3 * image + 3]
        assert (np.asarray(own[0].images[0].get_array()) == shown.images[image]).all()
        for axes, variant in zip(own[1:], ("none", "sa"), strict=True):
            assert (np.asarray(axes.images[1].get_array()) == shown.maps[variant][image]).all()
            assert axes.images[1].get_clim() == (0, 1)
    said = [set(words(text).replace("(", "").replace(")", "").split()) for text in written(drawn)]
    for text in ("none", "sa", "cat", "cat p = 0.00", "dog wrong p = 1.00", "fox wrong p = 1.00"):
        assert set(text.split()) in said
    assert "Not shown: 2 more variants." in " ".join(drawn.texts[0].get_text().split())
    assert cut(drawn) == overlapping(drawn) == []


NAMES = ["Old English sheepdog", "black-footed ferret", "Great Grey Owl", "n02106662", "teddy, teddy bear"]


@STRANGE
@pytest.mark.parametrize(
    ("variants", "classes"),
    [
        (SHORT[:1], ["0", "1"]),
        (SHORT[:1], NAMES),
        (SHORT[:6], list("01234")),
        (SHORT[:6], NAMES),
        (LONG[:6], list("01234")),
        (LONG[:1], NAMES),
        (LONG[:6], NAMES[:2]),
        (["shufflenet_v2_x0_5, sa", "shufflenet_v2_x0_5, none", "resnet18, se_matched"] * 1, NAMES),
        ([f"shufflenet_v2_x0_5, groups={number}" for number in range(6)], list("01")),
        (UNBROKEN[:6], NAMES),
    ],
)
def test_unusual_studies_are_drawn_and_nothing_is_cut(variants: list[str], classes: list[str]) -> None:
    drawn = draw_cams(cams(variants, classes), "A caption of many words. " * 12)
    assert cut(drawn) == []
    assert overlapping(drawn) == []
    for axes in drawn.axes:
        assert axes.get_window_extent().width > 0.4 * drawn.dpi  # inches
