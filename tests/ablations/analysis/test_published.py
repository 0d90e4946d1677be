from __future__ import annotations

import pytest
import torch

from ablations.analysis.networks import count_multiply_adds
from ablations.analysis.published import published_results
from sa_core import create_model

PAIRS = [(row["attention"], row["backbone"]) for row in published_results().to_dict("records")]

# Additional parameters of our modules where they differ from the official code. By the paper's rule ECA has the kernel
# sizes 5, 5, 5, 7 in the four stages; the published networks have 3, 5, 5, 7 and, with ResNet-101, 3, 3, 5, 7.
OTHER_PARAMETERS = {("eca", "resnet50"): 3 * 2, ("eca", "resnet101"): 3 * 2 + 4 * 2}


def test_every_network_is_listed_once_with_a_source() -> None:
    results = published_results()
    assert list(results.columns) == [
        "attention", "backbone", "top1", "top5", "parameters", "multiply_adds", "source",
    ]  # fmt: skip
    assert results["source"].str.fullmatch(r"[\w-]+/[\w-]+ .+ @[0-9a-f]{7} \(20\d\d-\d\d-\d\d\)").all()
    assert not results.duplicated(["attention", "backbone"]).any()
    assert results.drop(columns="top5").notna().all(axis=None)
    assert "none" in set(results["attention"])  # not read as a missing value


def test_accuracies_are_plausible() -> None:
    results = published_results()
    assert results["top1"].between(76, 80).all()
    assert results["top5"].dropna().between(92, 95).all()
    by_module = results.pivot_table(index="attention", columns="backbone", values="top1")
    assert (by_module["resnet101"] > by_module["resnet50"]).all()


def test_shuffle_attention_is_listed_for_both_backbones() -> None:
    rows = {(row["attention"], row["backbone"]): row for row in published_results().to_dict("records")}
    assert rows["sa", "resnet50"]["top1"] == 77.88
    assert rows["sa", "resnet101"]["top1"] == 78.95
    assert rows["none", "resnet50"]["top1"] == 76.384
    assert {backbone for _, backbone in PAIRS} == {"resnet50", "resnet101"}


@pytest.mark.parametrize(("attention", "backbone"), PAIRS)
def test_parameters_and_multiply_adds_equal_those_of_our_networks(attention: str, backbone: str) -> None:
    row = published_results().set_index(["attention", "backbone"]).loc[(attention, backbone)]
    knobs = {"groups": 64} if attention in ("sa", "sge") else {}
    with torch.device("meta"):
        model = create_model(backbone, attention=attention, num_classes=1000, stem="imagenet", seed=0, **knobs)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted - row["parameters"] == OTHER_PARAMETERS.get((attention, backbone), 0)
    network = {"model": {"name": backbone, "stem": "imagenet"}, "attention": {"name": attention, **knobs}}
    ours = count_multiply_adds(network, 1000, 224)
    assert ours == pytest.approx(row["multiply_adds"], rel=1e-3)
