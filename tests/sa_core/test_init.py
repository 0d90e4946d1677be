from __future__ import annotations

import subprocess
import sys

import pytest

import sa_core


@pytest.mark.parametrize("name", sa_core.__all__)
def test_every_public_name_is_importable_and_listed(name: str) -> None:
    assert getattr(sa_core, name) is not None
    assert name in dir(sa_core)


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sa_core' has no attribute 'Shuffle'"):
        sa_core.Shuffle  # noqa: B018


def test_the_modules_import_timm_and_torchvision_only_on_demand() -> None:
    code = (
        "import sys; from sa_core import ShuffleAttention, create_model;"
        "ShuffleAttention(128); create_model('resnet8', attention='sa', groups=4);"
        "sys.exit('timm' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
