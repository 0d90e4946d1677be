from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.common.errors import UsageError
from ablations.config.compose import compose_config
from tests.wording import refusal


def test_the_defaults_and_choices_of_measure() -> None:
    measure = compose_config([]).measure
    assert (measure.name, measure.precision, measure.margin) == ("on", 2.0, 5.0)
    assert compose_config(["measure=off"]).measure.name == "off"
    assert compose_config(["measure=off", "measure=only", "measure.seconds=3"]).measure.name == "only"


@pytest.mark.parametrize("written", ["0.5%", "0.5", "'0.5 %'", "0.50%", "5e-1%"])
def test_percentages_may_have_a_percent_sign(written: str) -> None:
    measure = compose_config([f"measure.precision={written}", f"measure.margin={written}"]).measure
    assert (measure.precision, measure.margin) == (0.5, 0.5)


@given(st.floats(0, 100).map(lambda value: round(value, 4)))
def test_every_percentage_in_the_range_is_valid(value: float) -> None:
    assert compose_config([f"measure.precision={value}%"]).measure.precision == pytest.approx(value)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("measure.precision=-1%", refusal("measure.precision=-1.0", "options.below", least=0.0)),
        ("measure.precision=101%", refusal("measure.precision=101.0", "options.over", most=100.0)),
        ("measure.precision=nan%", refusal("measure.precision=nan", "options.below", least=0.0)),
        ("measure.precision=abc%", refusal("measure.precision=abc%", "options.no_number")),
        ("measure.precision=2%%", refusal("measure.precision=2%%", "options.no_number")),
        ("measure.precision=%", refusal("measure.precision=%", "options.no_number")),
        ("measure.precision=[2%]", refusal("measure.precision=[2%]", "options.no_number")),
        ("measure.margin=0%", refusal("measure.margin=0.0", "options.not_above", above=0)),
        ("measure.seconds=2%", refusal("measure.seconds=2%", "options.no_number")),
        (
            "measure.precison=2%",
            refusal("measure.precison", "options.no_such", what="option", near="measure.precision"),
        ),
        ("measure=onyl", refusal("measure=onyl", "options.no_such", what="measure", near="only")),
        ("measure=quick", refusal("measure=quick", "options.no_such", what="measure", valid="off, on, only")),
    ],
)
def test_invalid_options_of_measure_are_refused(typed: str, message: str) -> None:
    with pytest.raises(UsageError, match="^" + message):
        compose_config([typed])
