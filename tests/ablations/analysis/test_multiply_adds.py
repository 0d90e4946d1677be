from __future__ import annotations

from pathlib import Path

import torch

from ablations.analysis.multiply_adds import count_multiply_adds
from ablations.design.variants import plain_network
from ablations.measure.complexity import count_operations
from tests.builders.kept import GROUPS, stored_study
from tests.builders.networks import random_network


def test_multiply_adds_are_those_of_the_network_that_is_built_for_real(tmp_path: Path) -> None:
    found, image = stored_study(tmp_path, *GROUPS), torch.zeros(1, 3, 32, 32)
    for variant in found.design.variants:
        expected = count_operations(random_network(variant.network), image).multiply_adds
        assert count_multiply_adds(variant.network, 10, 32) == found.multiply_adds[variant.name] == expected
        plain = random_network(plain_network(variant.model))
        assert found.plain_adds[variant.name] == count_operations(plain, image).multiply_adds
