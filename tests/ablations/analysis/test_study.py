from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from ablations.analysis.results import collect
from ablations.analysis.study import StudyAnalysis
from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.design.variants import plain_network
from ablations.measure.complexity import count_operations
from ablations.storage.cell_states import StoredCell
from ablations.training.learner import build_network
from tests.builders.attributes import ATTRIBUTES
from tests.builders.cells import configuration, design, stored


def study(folder: Path, cells: Iterable[StoredCell], config: Config | None = None, **attributes: Any) -> StudyAnalysis:
    config = config or configuration()
    study_design = make_design(config)
    return StudyAnalysis(config, study_design, collect(study_design, cells), ATTRIBUTES | attributes, folder)


def test_multiply_adds_equal_those_counted_on_a_real_network(tmp_path: Path) -> None:
    config = compose_config(["device=cpu", "replicates=1", "sweep=backbones", "sweep.factors.model=[resnet8,resnet20]"])
    study_design = make_design(config)
    seven = ATTRIBUTES["data"] | {"classes": list("abcdefg")}
    analysis = study(tmp_path, stored(study_design, 3), config, data=seven)
    names = [variant.name for variant in study_design.variants]
    assert list(analysis.multiply_adds) == names[:3]  # the fourth is not finished
    assert list(analysis.plain_adds) == names
    pixels = torch.zeros(1, 3, 20, 20)
    for variant in study_design.variants:
        counted = count_operations(build_network(variant.network, 7, 0, fused="off").eval(), pixels).multiply_adds
        plain = plain_network(variant.model)
        assert (
            analysis.plain_adds[variant.name]
            == count_operations(build_network(plain, 7, 0).eval(), pixels).multiply_adds
        )
        if variant.name in analysis.multiply_adds:
            assert analysis.multiply_adds[variant.name] == counted
        assert (counted > analysis.plain_adds[variant.name]) == (not variant.is_plain)


def test_multiply_adds_depend_on_the_resolution(tmp_path: Path) -> None:
    root = [f"data.root={tmp_path}", "device=cpu", "replicates=1", "sweep.factors={}", "model=resnet18"]
    small, large = (
        compose_config(["data=imagenet_subset", f"data.resolution={side}", *root, "sweep.variants={none: {}}"])
        for side in (128, 224)
    )
    adds = [study(tmp_path, stored(make_design(config), 1), config).multiply_adds["none"] for config in (small, large)]
    assert adds[1] == pytest.approx(adds[0] * (224 / 128) ** 2, rel=0.01)


def test_an_analysis_is_computed_once(tmp_path: Path) -> None:
    analysis = study(tmp_path, stored(design(), 6))
    assert analysis.contrasts is analysis.contrasts
    assert analysis.summaries is analysis.summaries
    assert analysis.multiply_adds is analysis.multiply_adds
    assert isinstance(analysis.results.cells, pd.DataFrame)


def test_interim_analyses_are_read_from_the_store(tmp_path: Path) -> None:
    interims = study(tmp_path, stored(design(), 6), looks=[9, 12, 16]).interims
    assert interims is not None
    assert interims.sizes == (9, 12, 16)
