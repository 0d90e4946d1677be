from __future__ import annotations

from collections.abc import Mapping

import pytest

from ablations.ledger.assess import Assessment, assessment_of
from ablations.ledger.declared import Outcome
from ablations.ledger.stored import Study
from tests.builders.claims import around, claim, imagenet, network, study
from tests.wording import worded


def level(n: int = 8) -> dict[int, float]:
    return dict.fromkeys(range(n), 70.0)


def assessed(name: str, *studies: Study) -> Assessment:
    return assessment_of(claim(name), studies)


def of_shuffle(on: Mapping[int, float], *overrides: str, name: str = "mine", store: str = "sqlite:///x") -> Study:
    return study([(network(), on), (network(shuffle=False), level())], *overrides, name=name, store=store)


@pytest.mark.parametrize(
    ("sge", "eca", "outcome"),
    [
        (0.0, 0.0, Outcome.REPRODUCED),
        (0.0, 1.0, Outcome.CONTRADICTED),
        (-1.0, 0.0, Outcome.CONTRADICTED),
        (0.0, None, Outcome.UNDECIDED),  # only one of the two rivals
        (0.0, 0.5, Outcome.UNDECIDED),
        (1.0, None, Outcome.CONTRADICTED),
        (None, None, Outcome.NOT_RUN),
    ],
)
def test_a_claim_about_several_pairs_needs_all_of_them(sge: float | None, eca: float | None, outcome: Outcome) -> None:
    rivals = [(network(attention=name), around(70 + by)) for name, by in (("sge", sge), ("eca", eca)) if by is not None]
    assert assessed("rivals", study([*rivals, (network(), level())])).outcome is outcome


@pytest.mark.parametrize(
    ("small", "large", "outcome"),
    [
        (77.88, 78.95, Outcome.REPRODUCED),
        (77.88, None, Outcome.UNDECIDED),  # only one of the two networks
        (77.88, 77.00, Outcome.CONTRADICTED),
        (77.00, None, Outcome.CONTRADICTED),
    ],
)
def test_a_claim_about_several_published_numbers_needs_all_of_them(
    small: float, large: float | None, outcome: Outcome
) -> None:
    studies = [imagenet(around(small))]
    studies += [imagenet(around(large), "model=resnet101")] if large else []
    assert assessed("released", *studies).outcome is outcome


def test_the_order_of_studies_does_not_change_the_verdict() -> None:
    studies = [of_shuffle(around(71), name="a"), of_shuffle(around(69), "data=cifar100", name="b")]
    assert {assessed("shuffle", *order).outcome for order in (studies, studies[::-1])} == {Outcome.DEPENDS}
    unclear = of_shuffle({0: 69.0, 1: 71.0}, "data=cifar100")
    assert {assessed("shuffle", *order).outcome for order in ([studies[0], unclear], [unclear, studies[0]])} == {
        Outcome.REPRODUCED
    }


def test_further_studies_widen_the_interval_of_each() -> None:
    """+0.30 in three replicates is enough as the only comparison, but not as one of two."""
    first = of_shuffle({0: 70.2, 1: 70.3, 2: 70.4})
    unclear = of_shuffle({0: 69.0, 1: 71.0}, "data=cifar100")
    assert assessed("shuffle", first).outcome is Outcome.REPRODUCED
    assert assessed("shuffle", first, unclear).outcome is Outcome.UNDECIDED


def test_a_copy_of_a_store_does_not_count_as_a_second_study() -> None:
    original, copy = (
        of_shuffle({0: 70.2, 1: 70.3, 2: 70.4}),
        of_shuffle({0: 70.2, 1: 70.3, 2: 70.4}, store="sqlite:///copy"),
    )
    alone, both = assessed("shuffle", original), assessed("shuffle", original, copy)
    assert [found.seen for found in both.found] == [found.seen for found in alone.found]
    assert (both.outcome, both.studies) == (alone.outcome, 1)


def test_studies_at_other_scales_or_on_synthetic_images_do_not_change_the_verdict() -> None:
    imagenet_scale, half = imagenet(around(77.5)), imagenet(around(70.0), groups=32)
    digits = study([(network(), around(60)), (network(attention="none"), level())], "data=digits")
    assert assessed("gain", imagenet_scale, half, digits).outcome is Outcome.REPRODUCED
    assert assessed("gain", half, digits).outcome is Outcome.UNDECIDED
    assert assessed("gain", half, digits).studies == 0
    assert assessed("gain").outcome is Outcome.NOT_RUN


@pytest.mark.parametrize("difference", [0.0, 2.0, -2.0])
@pytest.mark.parametrize("name", ["shuffle", "gain", "conv1x1", "affine"])
def test_digits_alone_leave_every_claim_undecided(name: str, difference: float) -> None:
    networks = [network(), network(shuffle=False), network(attention="none"), network(transform="conv1x1"),
                network(transform="affine_channel")]  # fmt: skip
    digits = study(
        [(one, around(70 + difference * (number == 0))) for number, one in enumerate(networks)], "data=digits"
    )
    one = assessed(name, digits)
    assert (one.outcome, one.family_sentence) == (Outcome.UNDECIDED, "")
    assert one.command == claim(name).command
    assert worded("ledger.not_real").lstrip(": ").removeprefix("not counted: ") in one.short_evidence


def test_the_family_sentence_counts_eligible_and_decided_comparisons() -> None:
    first, second = of_shuffle(around(71), name="a"), of_shuffle({0: 69.0, 1: 71.0}, "data=cifar100", name="b")
    assert assessed("shuffle", first, second).family_sentence == (
        "Eligible comparisons: 2, from 2 studies; decided: 1. Each interval is at 97.5 % or more, so that they "
        "hold simultaneously at 95 %."
    )
    assert assessed("shuffle", first).family_sentence == (
        "Eligible comparisons: 1, from 1 study; decided: 1. Each interval is at 95 % or more."
    )


def test_short_evidence_begins_with_the_strongest() -> None:
    digits = of_shuffle(around(71), "data=digits", name="digits")
    unclear = of_shuffle({0: 69.0, 1: 71.0}, "data=cifar100", name="unclear")
    clear = of_shuffle(around(71), name="clear")
    short = assessed("shuffle", digits, unclear, clear).short_evidence
    assert [part.partition(":")[0] for part in short.split("; ")] == ["clear", "unclear", "digits"]


def test_a_computed_claim_needs_no_study_and_has_no_family() -> None:
    params = assessed("params")
    assert (params.outcome, params.found, params.family_sentence, params.command) == (Outcome.CONTRADICTED, [], "", "")
