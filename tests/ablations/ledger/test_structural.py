from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ablations.ledger.declared import CLAIMS, Outcome
from ablations.ledger.structural import CHECKS, distance_from_instance_norm
from sa_core import ShuffleAttention
from sa_core.backbones.registry import BACKBONES
from tests.builders.claims import claim

PLACES = BACKBONES["resnet50"].insertion_points()
SIDES = {1: 56, 2: 28, 3: 14, 4: 7}  # side of each stage's feature maps, for images of 224 pixels


def test_exactly_the_claims_about_the_module_are_computed() -> None:
    assert set(CHECKS) == {claim.id for claim in CLAIMS if claim.expects is None}


def test_counted_parameters_contradict_the_abstract() -> None:
    outcome, evidence = CHECKS["params"](claim("params"))
    added = sum(6 * place.channels // (2 * 64) for place in PLACES)
    assert outcome is Outcome.CONTRADICTED
    assert evidence.startswith(f"counted: {added:,} more with G = 64 (")
    assert CHECKS["params"](replace(claim("params"), number=added))[0] is Outcome.REPRODUCED


def test_multiply_adds_reproduce_the_abstract_which_omits_more_operations_than_it_counts() -> None:
    outcome, evidence = CHECKS["flops"](claim("flops"))
    pooled = sum(place.channels // 2 * SIDES[place.stage] ** 2 for place in PLACES)
    assert outcome is Outcome.REPRODUCED
    assert f" {pooled:,} more multiply-adds" in evidence
    uncounted = int(evidence.partition("without ")[2].partition(" ")[0].replace(",", ""))
    assert uncounted > 4 * 2 * pooled  # for each element the norm or the gate, a product, and the shuffle's copies


@pytest.mark.parametrize("number", [2.75e-3, 2.77e-3, 2.76])
def test_another_number_of_multiply_adds_is_contradicted(number: float) -> None:
    assert CHECKS["flops"](replace(claim("flops"), number=number))[0] is Outcome.CONTRADICTED


def test_the_norm_is_instance_norm_and_the_evidence_states_the_difference() -> None:
    outcome, evidence = CHECKS["norm"](claim("norm"))
    assert outcome is Outcome.REPRODUCED
    difference = float(evidence.partition("weight and bias is ")[2].partition(" ")[0])
    assert 0 <= difference < 1e-12


@given(channels=st.sampled_from([2, 4, 16, 48]), groups=st.sampled_from([1, 2, 4]), seed=st.integers(0, 2**32 - 1))
def test_the_modules_norm_is_instance_norm_at_any_width(channels: int, groups: int, seed: int) -> None:
    module = ShuffleAttention(2 * channels * groups, groups=groups).double()
    assert distance_from_instance_norm(module.gn, channels, seed) < 1e-9


@given(channels=st.sampled_from([2, 4, 16]), seed=st.integers(0, 2**32 - 1))
def test_a_norm_over_several_channels_differs_from_instance_norm(channels: int, seed: int) -> None:
    assert distance_from_instance_norm(nn.GroupNorm(1, channels).double(), channels, seed) > 1e-3
    assert distance_from_instance_norm(nn.GroupNorm(channels, channels, eps=1e-2).double(), channels, seed) < 1e-9


def test_a_norm_without_its_weight_differs_from_instance_norm() -> None:
    class Plain(nn.GroupNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.group_norm(x, self.num_groups, None, self.bias, self.eps)

    assert distance_from_instance_norm(Plain(4, 4).double(), 4) > 1e-3


def test_narrow_networks_are_refused_by_name_and_the_alternatives_are_built() -> None:
    outcome, evidence = CHECKS["small"](claim("small"))
    assert outcome is Outcome.REPRODUCED
    assert evidence == (
        "built: G = 64 is rejected at layer1.0.sa of resnet18, which has 64 channels, and fits 128; alternatives "
        "that can be built there: groups=auto (16 there) and groups_policy=clamp"
    )


def test_groups_that_fit_contradict_the_claim() -> None:
    outcome, evidence = CHECKS["small"](replace(claim("small"), number=32))
    assert outcome is Outcome.CONTRADICTED
    assert "is accepted at layer1.0.sa of resnet18" in evidence


def test_the_default_generator_is_unchanged() -> None:
    before = torch.random.get_rng_state()
    for name, check in CHECKS.items():
        check(claim(name))
    assert torch.equal(torch.random.get_rng_state(), before)
