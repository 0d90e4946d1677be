from __future__ import annotations

import subprocess
import sys

import pytest

import sa_core


@pytest.mark.parametrize("name", sa_core.__all__)
def test_every_public_name_can_be_had_and_is_listed(name: str) -> None:
    assert getattr(sa_core, name) is not None
    assert name in dir(sa_core)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sa_core' has no attribute 'Shuffle'"):
        sa_core.Shuffle  # noqa: B018


def test_the_modules_import_torch_only_and_leave_timm_and_torchvision_for_when_they_are_needed() -> None:
    code = (
        "import sys; from sa_core import ShuffleAttention, create_model;"
        "ShuffleAttention(128); create_model('resnet8', attention='sa', groups=4);"
        "sys.exit('timm' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
