from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_core import ATTENTION
from sa_core.catalog import ATTENTIONS, fitting_groups, norm_groups, split_channels


@given(st.integers(0, 300), st.integers(-2, 300))
def test_fitting_groups_are_those_that_split(channels: int, groups: int) -> None:
    if groups in fitting_groups(channels):
        assert split_channels(channels, groups) * 2 * groups == channels
    else:
        with pytest.raises(ValueError, match="does not split"):
            split_channels(channels, groups)


def test_every_name_in_the_catalog_has_a_module_with_those_knobs_and_defaults() -> None:
    assert set(ATTENTIONS) == set(ATTENTION)
    for name, knobs in ATTENTIONS.items():
        parameters = inspect.signature(ATTENTION[name]).parameters
        declared = {knob.name: knob.default for knob in fields(knobs)}
        assert declared == {knob: parameters[knob].default for knob in declared}, name


@pytest.mark.parametrize(
    ("norm", "channels", "groups"),
    [("instance", 6, 6), ("layer", 6, 1), ("group:2", 6, 2), ("batch", 6, None), ("none", 6, None)],
)
def test_a_norm_says_how_many_groups_it_takes(norm: str, channels: int, groups: int | None) -> None:
    assert norm_groups(norm, channels) == groups


def test_the_catalog_is_reached_without_importing_torch() -> None:
    code = "import sa_core.catalog, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
