from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ablations.measure.degenerate import DegenerateModule
from ablations.reporting.text.degenerate import degenerate_clauses
from sa_core.attentions.findings import (
    CONSTANT_GATE,
    INPUT_INDEPENDENT,
    NO_GRADIENT,
    SINGLE_HIDDEN_UNIT,
    SINGLE_VALUE_NORM,
    Finding,
)
from sa_core.backbones.insertion_points import InsertionPoint
from tests.wording import worded

PLACES = tuple(InsertionPoint(1, f"layer1.{block}.sa", 16) for block in range(5))


def module(name: str, *findings: Finding, variant: str = "", side: int = 32, **knobs: Any) -> DegenerateModule:
    attention = {"name": name, "stages": "all", "position": "residual", **knobs}
    network = {"model": {"name": "resnet8"}, "attention": attention}
    return DegenerateModule(variant or name, network, PLACES[:1], (16, side, side), findings)


GC = module(
    "gc",
    *(Finding(NO_GRADIENT, name) for name in ("a", "b", "c", "d", "e")),
    Finding(INPUT_INDEPENDENT),
    Finding(SINGLE_VALUE_NORM, "norm"),
    Finding(SINGLE_HIDDEN_UNIT, "fc1"),
    reduction=16,
)


def where(module: str, places: str = "layer1.0.sa", side: int = 32) -> str:
    return worded("degenerate.where", module=module, places=places, model="resnet8", stage=1, channels=16, side=side)


def test_a_clause_has_module_insertion_point_reasons_and_advice() -> None:
    reasons = [
        worded("degenerate.hidden", name="fc1"),
        worded("degenerate.norm", name="norm"),
        worded("degenerate.same"),
        worded("degenerate.gradient", names="a, b, c and 2 more"),
        worded("degenerate.reduction", most=4),
    ]
    assert degenerate_clauses([GC]) == [where("gc") + "; ".join(reasons)]


def test_a_variant_is_named_unless_it_is_the_module() -> None:
    (clause,) = degenerate_clauses([replace(GC, variant="gc16")])
    assert clause.startswith(where("gc16: gc"))


def test_of_many_insertion_points_the_first_are_named() -> None:
    (clause,) = degenerate_clauses([replace(GC, places=PLACES)])
    assert clause.startswith(where("gc", places="layer1.0.sa, layer1.1.sa, layer1.2.sa and 2 more"))


@pytest.mark.parametrize(
    ("found", "reasons"),
    [
        (
            module("sa", Finding(CONSTANT_GATE, channels=8), side=1, groups=4),
            [worded("degenerate.partly", channels=8, all=16), worded("degenerate.maps", stem="")],
        ),
        (
            module("sa", Finding(NO_GRADIENT), groups=4, gate_bias=20.0),
            [worded("degenerate.stuck"), worded("degenerate.bias")],
        ),
        (module("sge", Finding(INPUT_INDEPENDENT), groups=4), [worded("degenerate.same")]),
    ],
)
def test_the_advice_depends_on_the_finding(found: DegenerateModule, reasons: list[str]) -> None:
    (clause,) = degenerate_clauses([found])
    assert clause == where(found.variant, side=found.shape[1]) + "; ".join(reasons)


def test_a_stem_that_keeps_small_images_larger_is_named() -> None:
    found = module("sge", Finding(INPUT_INDEPENDENT), side=1, groups=4)
    found.network["model"]["stem"] = "imagenet"
    assert degenerate_clauses([found])[0].endswith(worded("degenerate.maps", stem=" model.stem=cifar,"))


def test_of_very_many_modules_the_first_are_described() -> None:
    clauses = degenerate_clauses([replace(GC, variant=f"v{number}") for number in range(20)])
    assert len(clauses) == 13
    assert clauses[-1] == worded("degenerate.others", number=8)
    assert degenerate_clauses([]) == []
