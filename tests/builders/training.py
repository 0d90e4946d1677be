"""Networks and training results of minimal size."""

from __future__ import annotations

from typing import Any

from ablations.common.settings import Settings
from ablations.training.train import (
    Result,
    train,
)


def result_of(*arguments: Any, **options: Any) -> Result:
    *_, last = train(*arguments, **options)
    assert isinstance(last, Result)
    return last


def network(**attention: Any) -> Settings:
    return {"model": {"name": "resnet8"}, "attention": attention or {"name": "none"}}


SA = network(name="sa", groups=4, branches="both", shuffle=True, norm="instance")
