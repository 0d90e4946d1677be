from __future__ import annotations

import shlex

import pytest

from ablations.config import AUTO
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.execution.schedules.sequential import interims_of
from ablations.ledger.comparisons import is_at_scale, matches
from ablations.ledger.declared import CLAIMS, OFFICIAL, Claim, Expectation
from ablations.ledger.stored import Network, Study
from tests.builders.claims import WHOLE
from tests.builders.claims import claim as by_id

TRAINED = [claim for claim in CLAIMS if claim.expects is not None]


@pytest.mark.parametrize("claim", TRAINED, ids=lambda claim: claim.id)
def test_the_command_that_would_settle_a_claim_compares_its_pairs(claim: Claim) -> None:
    python, flag, module, *overrides = shlex.split(claim.command.replace("<ImageNet>", "x"))
    assert (python, flag, module) == ("python", "-m", "ablations.run")
    config = compose_config([*overrides, "device=cpu"])
    design = make_design(config)
    if config.replicates == AUTO:
        interims_of(design)
    networks = {variant.name: variant.network for variant in design.variants}
    for pair in claim.pairs:
        assert any(
            matches(pair, networks[one], networks[other])
            for names in design.baselines.items()
            for one, other in (names, names[::-1])
        )
    official = [Network(known, name, {}) for name, known in networks.items() if OFFICIAL.items()
                <= known["attention"].items()]  # fmt: skip
    made = Study(design.study, "", design.protocol, {"data": WHOLE}, tuple(official))
    assert all(is_at_scale(claim.scale, made, one) for one in official)
    assert claim.top1.keys() <= {one.model["name"] for one in official}


@pytest.mark.parametrize("claim", TRAINED, ids=lambda claim: claim.id)
def test_a_claim_names_the_weight_decay_that_its_command_trains_with(claim: Claim) -> None:
    config = compose_config(shlex.split(claim.command.replace("<ImageNet>", "x"))[3:])
    assert config.train.decay == (claim.decay or "weights")
    assert (f"train.decay={claim.decay}" in claim.decay_sentence) == bool(claim.decay)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_an_equivalence_claim_declares_a_margin_and_its_reason(claim: Claim) -> None:
    is_sameness = claim.expects in (Expectation.EQUIVALENT, Expectation.TOP1)
    assert (claim.margin > 0) == bool(claim.margin_reason) == is_sameness
    assert (f"±{claim.margin:g}" in claim.rule) == is_sameness
    assert claim.margin_reason in claim.rule_in_full
    assert bool(claim.rule_in_full) == (claim.expects is not None)


@pytest.mark.parametrize(
    ("name", "rule", "parts"),
    [
        ("gain", "difference above 1.34", 1),
        ("shuffle", "difference above 0", 1),
        ("affine", "difference within ±0.2", 1),
        ("rivals", "difference within ±0.5", 2),
        ("released", "one run within ±0.3 of the published", 2),
        ("params", "computed", 0),
    ],
)
def test_a_rule_shows_its_numbers(name: str, rule: str, parts: int) -> None:
    assert (by_id(name).rule, by_id(name).parts) == (rule, parts)
