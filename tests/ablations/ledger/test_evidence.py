from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ablations.ledger.declared import Outcome
from ablations.ledger.evidence import Evidence, evidence_of, level_text
from ablations.ledger.stored import Study
from ablations.stats import estimate
from tests.builders.claims import IMAGENET, WHOLE, around, claim, imagenet, network, study
from tests.wording import worded

NAN = float("nan")


def level(n: int = 8) -> dict[int, float]:
    return dict.fromkeys(range(n), 70.0)


def found(name: str, *studies: Study) -> list[Evidence]:
    return evidence_of(claim(name), studies)


def only(name: str, *studies: Study) -> Evidence:
    (evidence,) = found(name, *studies)
    return evidence


def spread_over(low: float, high: float, confidence: float, base: Mapping[int, float]) -> dict[int, float]:
    """Eight replicates whose differences from `base` have this interval."""
    noise = estimate(list(around(0.0).values()), confidence)
    scale = (high - low) / (noise.high - noise.low)
    return {key: base[key] + (low + high) / 2 + scale * (value - noise.mean) for key, value in around(0.0).items()}


def of_pair(
    claimed: str,
    top1: Mapping[int, float],
    *overrides: str,
    control: Mapping[int, float] | None = None,
    **options: Any,
) -> Study:
    """A study of the networks that a claim is about; the default control has 70 % in every replicate."""
    networks = {
        "shuffle": (network(), network(shuffle=False)),
        "affine": (network(transform="affine_channel"), network()),
        "conv1x1": (network(transform="conv1x1"), network()),
    }[claimed]
    return study(
        [(networks[0], top1), (networks[1], control or level(max(top1, default=0) + 1))], *overrides, **options
    )


@pytest.mark.parametrize(
    ("name", "difference", "outcome"),
    [
        ("shuffle", 1.0, Outcome.REPRODUCED),
        ("shuffle", -1.0, Outcome.CONTRADICTED),
        ("shuffle", 0.0, Outcome.UNDECIDED),
        ("affine", 0.0, Outcome.REPRODUCED),
        ("affine", -0.12, Outcome.REPRODUCED),  # the difference that the author measured
        ("affine", 0.2, Outcome.UNDECIDED),
        ("affine", 1.0, Outcome.CONTRADICTED),
        ("affine", -1.0, Outcome.CONTRADICTED),
        ("conv1x1", 0.0, Outcome.REPRODUCED),
        ("conv1x1", 1.0, Outcome.CONTRADICTED),
    ],
)
def test_a_comparison_reproduces_or_contradicts_a_claim_without_a_scale(
    name: str, difference: float, outcome: Outcome
) -> None:
    assert only(name, of_pair(name, around(70 + difference))).outcome is outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.40, 1.40, Outcome.UNDECIDED),  # +0.90: above 0, but not above 1.34
        (1.35, 1.60, Outcome.REPRODUCED),
        (0.40, 1.33, Outcome.CONTRADICTED),
        (-2.0, -1.0, Outcome.CONTRADICTED),
    ],
)
def test_the_gain_must_exceed_the_claimed_number(low: float, high: float, outcome: Outcome) -> None:
    plain = dict(enumerate(reversed(around(76, spread=20.0).values())))
    evidence = only("gain", imagenet(spread_over(low, high, 0.95, plain), plain=plain))
    assert (evidence.seen.low, evidence.seen.high) == (pytest.approx(low), pytest.approx(high))
    assert (evidence.outcome, evidence.level) == (outcome, pytest.approx(0.95))


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.08, 0.42, Outcome.UNDECIDED),  # +0.25: neither 0 nor more than 0.2
        (-0.10, 0.19, Outcome.REPRODUCED),
        (0.01, 0.19, Outcome.REPRODUCED),
        (0.21, 0.55, Outcome.UNDECIDED),  # its 95 % interval is not beyond the margin
        (0.25, 0.42, Outcome.CONTRADICTED),
        (-0.42, -0.25, Outcome.CONTRADICTED),
    ],
)
def test_equivalence_needs_an_interval_within_the_margin_and_a_contradiction_one_beyond(
    low: float, high: float, outcome: Outcome
) -> None:
    control = dict(enumerate(reversed(around(70, spread=8.0).values())))
    evidence = only("conv1x1", of_pair("conv1x1", spread_over(low, high, 0.90, control), control=control))
    assert (evidence.seen.low, evidence.seen.high) == (pytest.approx(low), pytest.approx(high))
    assert (evidence.outcome, evidence.level) == (outcome, pytest.approx(0.90))


@pytest.mark.parametrize(
    ("top1", "overrides", "outcome"),
    [
        (around(77.88), (), Outcome.REPRODUCED),
        (around(77.70), (), Outcome.REPRODUCED),
        (around(77.40), (), Outcome.CONTRADICTED),
        (around(77.58), (), Outcome.UNDECIDED),
        (around(78.95), (), Outcome.CONTRADICTED),
        (around(78.95), ("model=resnet101",), Outcome.REPRODUCED),
        ({0: 77.88}, (), Outcome.UNDECIDED),
        ({0: 77.5, 1: 77.5}, (), Outcome.UNDECIDED),
    ],
)
def test_the_released_accuracy_is_compared_as_a_single_run(
    top1: dict[int, float], overrides: tuple[str, ...], outcome: Outcome
) -> None:
    evidence = only("released", imagenet(top1, *overrides))
    assert (evidence.outcome, evidence.level) == (outcome, pytest.approx(0.90))
    assert evidence.names.endswith(" %, published")


def test_a_published_run_outside_the_interval_of_the_mean_can_still_be_reproduced() -> None:
    top1 = around(77.88 - 0.1, spread=5.0)
    assert estimate(list(top1.values())).high < 77.88
    assert only("released", imagenet(top1)).outcome is Outcome.REPRODUCED


# The family.


def test_all_eligible_comparisons_share_the_error_rate() -> None:
    first = [(network(), around(70.05)), (network(shuffle=False), level())]
    second = [(network(gate="tanh1"), around(70.05)), (network(gate="tanh1", shuffle=False), level())]
    alone = only("shuffle", study(first))
    both, waiting = found("shuffle", study(first + second)), [(settings, {}) for settings, _ in second]
    elsewhere = found("shuffle", study(first), study(first, "data=cifar100"))
    assert (alone.family, alone.level) == (1, pytest.approx(0.95))
    assert [(found.family, found.level) for found in both + elsewhere] == [(2, pytest.approx(0.975))] * 4
    # Comparisons without finished replicates are in the family.
    assert only("shuffle", study([*first, *waiting])).level == pytest.approx(0.975)
    assert both[0].seen.low < alone.seen.low


def test_a_second_pair_can_make_the_first_undecided() -> None:
    second = [(network(gate="tanh1"), level(3)), (network(gate="tanh1", shuffle=False), level(3))]
    first = [(network(), {0: 70.2, 1: 70.3, 2: 70.4}), (network(shuffle=False), level(3))]
    assert only("shuffle", study(first)).outcome is Outcome.REPRODUCED
    assert [found.outcome for found in found("shuffle", study(first + second))] == [Outcome.UNDECIDED] * 2


def test_comparisons_that_are_not_eligible_are_not_in_the_family() -> None:
    real, digits = of_pair("shuffle", around(71)), of_pair("shuffle", around(71), "data=digits")
    assert [one.level for one in found("shuffle", real, digits)] == [pytest.approx(0.95)] * 2
    assert [one.ignored for one in found("shuffle", real, digits)] == ["", "not real images"]


def test_pooled_studies_give_the_interval_of_all_their_replicates() -> None:
    first, second = around(70.05, 4), {key: value for key, value in around(70.05).items() if key >= 4}
    pooled = only("shuffle", of_pair("shuffle", first), of_pair("shuffle", second, name="further"))
    assert pooled.seen == only("shuffle", of_pair("shuffle", around(70.05))).seen
    assert pooled.studies == "mine, further"


def test_a_study_with_interim_analyses_has_wider_intervals() -> None:
    once = only("shuffle", of_pair("shuffle", around(70.02, 6)))
    looked_at = only("shuffle", of_pair("shuffle", around(70.02, 6), interims=[6, 12]))
    assert (once.level, looked_at.level) == (pytest.approx(0.95), pytest.approx(1 - 0.05 / 4))


# Comparisons that are not eligible.


@pytest.mark.parametrize("name", ["shuffle", "affine", "conv1x1"])
@pytest.mark.parametrize("difference", [0.0, 3.0])
def test_synthetic_images_settle_nothing(name: str, difference: float) -> None:
    evidence = only(name, of_pair(name, around(70 + difference), "data=digits"))
    assert (evidence.outcome, evidence.ignored) == (None, "not real images")
    assert worded("ledger.not_real") in evidence.sentence
    assert f"{difference:+.2f} [" in evidence.sentence


def test_a_study_at_another_scale_settles_nothing() -> None:
    evidence = only("gain", imagenet(around(79.0), "data.resolution=128"))
    assert (evidence.outcome, evidence.ignored) == (None, "the claim is about a different scale")
    assert worded("ledger.other_scale") in evidence.sentence
    assert "+3.00" in evidence.sentence


def test_no_outcome_is_concluded_for_a_computed_claim() -> None:
    evidence = only("small", study([(network(), around(72)), (network(attention="none"), level())]))
    assert (evidence.outcome, evidence.ignored, evidence.reason) == (None, "", "")


# Replicates without a result.


@pytest.mark.parametrize("name", ["affine", "conv1x1"])
def test_equivalence_is_not_concluded_if_a_replicate_has_no_result(name: str) -> None:
    evidence = only(name, of_pair(name, around(70) | {3: NAN}))
    assert (evidence.outcome, evidence.seen.n) == (Outcome.UNDECIDED, 7)
    assert worded("ledger.no_sameness") in evidence.sentence
    assert worded("ledger.without_result", replicates="1 replicate has") in evidence.sentence


def test_a_published_number_is_not_reproduced_if_a_replicate_has_no_result() -> None:
    evidence = only("released", imagenet(around(77.88) | {8: NAN}))
    assert (evidence.outcome, evidence.reason) == (Outcome.UNDECIDED, worded("ledger.no_sameness"))


@pytest.mark.parametrize(("difference", "outcome"), [(1.0, Outcome.CONTRADICTED), (-1.0, Outcome.CONTRADICTED)])
def test_a_replicate_without_a_result_does_not_overrule_a_contradiction(difference: float, outcome: Outcome) -> None:
    assert only("conv1x1", of_pair("conv1x1", around(70 + difference) | {8: NAN})).outcome is outcome


def test_a_gain_is_reported_with_the_number_of_replicates_without_a_result() -> None:
    evidence = only("shuffle", of_pair("shuffle", around(71) | {3: NAN, 8: NAN}))
    assert (evidence.outcome, evidence.seen.n) == (Outcome.REPRODUCED, 7)
    assert worded("ledger.without_result", replicates="2 replicates have") in evidence.sentence


def test_networks_without_finished_replicates_are_not_evidence() -> None:
    assert found("shuffle", of_pair("shuffle", {0: NAN, 1: NAN})) == []


NOISE = [0.3, -0.2, 0.1, -0.3, 0.2, -0.1, 0.0, 0.1, -0.15, 0.25, -0.05, 0.15]


def with_a_loss(mean: float, loss: float) -> dict[int, float]:
    """Twelve runs, one of which is `loss` points lower."""
    return {key: mean + value - (loss if key == 5 else 0) for key, value in enumerate(NOISE)}


@pytest.mark.parametrize("name", ["shuffle", "conv1x1"])
def test_a_pair_with_an_unstable_network_is_undecided(name: str) -> None:
    pair = of_pair(name, with_a_loss(71, 30), control=dict(enumerate(70 + value for value in NOISE[::-1])))
    evidence = only(name, pair)
    assert evidence.outcome is Outcome.UNDECIDED
    assert evidence.reason.startswith("unstable: 1 of 12 runs of v0 ")


def test_equivalence_is_not_concluded_if_a_run_is_an_outlier_in_a_stable_network() -> None:
    control = dict(enumerate(70 + value for value in NOISE[::-1]))
    studies = [study([(network(attention="sge"), with_a_loss(70, loss)), (network(), control)]) for loss in (0.0, 0.75)]
    whole, stray = only("rivals", studies[0]), only("rivals", studies[1])
    assert (whole.outcome, stray.outcome) == (Outcome.REPRODUCED, Outcome.UNDECIDED)
    assert stray.reason == worded("ledger.strays")
    assert -0.5 < stray.seen.low < stray.seen.high < 0.5


# Sentences.


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({0: 71.0}, "a single replicate gives no interval"),
        (dict.fromkeys(range(5), 70.0), "the result is the same in every replicate, so its variance is unknown"),
        (around(70.01), "with this mean and spread about 15 replicates would decide it"),
    ],
)
def test_an_undecided_comparison_states_the_reason_and_the_replicates_needed(
    made: dict[int, float], reason: str
) -> None:
    evidence = only("shuffle", of_pair("shuffle", made))
    assert (evidence.outcome, evidence.reason) == (Outcome.UNDECIDED, reason)


def test_an_undecided_comparison_states_its_minimum_detectable_effect() -> None:
    undecided, decided = (only("shuffle", of_pair("shuffle", around(mean))) for mean in (70.01, 75))
    assert undecided.detectable is not None
    assert undecided.detectable == decided.detectable
    assert f"{undecided.detectable:.2f} points" in undecided.sentence
    assert f"{decided.detectable:.2f} points" not in decided.sentence


def test_the_reason_states_that_no_number_of_replicates_can_decide() -> None:
    evidence = only("released", imagenet(around(77.88, spread=10.0)))
    assert (evidence.outcome, evidence.reason) == (Outcome.UNDECIDED, worded("ledger.one_run"))


def test_the_stated_number_of_replicates_decides() -> None:
    """With the same mean and about the same spread; an even number of replicates."""
    top1 = around(77.88, 4, spread=5.0)
    mean, deviation = np.mean(list(top1.values())), np.std(list(top1.values()))
    evidence = only("released", imagenet(top1))
    assert evidence.reason == "with this mean and spread about 7 replicates would decide it"
    more = {key: mean + deviation * (1 if key % 2 else -1) for key in range(8)}
    assert only("released", imagenet(more)).outcome is Outcome.REPRODUCED


def test_a_sentence_has_studies_networks_outcome_interval_and_level() -> None:
    first = of_pair("shuffle", around(71, 4), known={"train": 24, "classes": ["a", "b"]})
    further = of_pair("shuffle", around(71), known={"train": 24, "classes": ["a", "b"]}, name="further")
    evidence = only("shuffle", first, further)
    start = (
        "mine, further (cifar10 (24 training images, 2 classes); resnet8; 4 epochs; train.decay=weights): "
        "v0 against v1, n = 8, +1.00 ["
    )
    assert evidence.sentence.startswith(start)
    assert evidence.sentence.endswith(
        "] at 95 %: reproduced (4 replicates also stored in further: the same runs, counted once)"
    )


def test_a_copy_is_identified_by_its_store() -> None:
    copy = of_pair("shuffle", around(71), store="sqlite:///copy")
    evidence = only("shuffle", of_pair("shuffle", around(71)), copy)
    assert evidence.notes == [worded("ledger.same_runs", replicates="8 replicates", where="mine in sqlite:///copy")]


def test_seeds_that_were_trained_twice_are_reported() -> None:
    evidence = only("shuffle", of_pair("shuffle", around(71)), of_pair("shuffle", around(75), name="gpu"))
    assert evidence.notes == [worded("ledger.other_result", seeds="8 seeds", where="gpu")]
    assert evidence.seen.mean == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("level", "text"), [(0.95, "95 %"), (0.9, "90 %"), (1 - 0.05 / 3, "98.3 %"), (1 - 0.05 / 90, "99.94 %")]
)
def test_levels_are_written_as_percent(level: float, text: str) -> None:
    assert level_text(level) == text


def test_a_study_on_all_of_imagenet_is_eligible_for_the_gain() -> None:
    assert only("gain", imagenet(around(77.4), *IMAGENET, known=WHOLE)).ignored == ""
