from __future__ import annotations

import shlex

import pytest

from ablations.config import AUTO
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.execution.schedules.sequential import looks_of
from ablations.ledger.declared import CLAIMS, OFFICIAL, Claim, Outcome, joined
from ablations.ledger.evidence import is_at_scale, matches
from ablations.ledger.stored import Network, Study
from tests.builders.claims import WHOLE

TRAINED = [claim for claim in CLAIMS if claim.expects is not None]


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], Outcome.NOT_RUN),
        ([Outcome.NOT_RUN, Outcome.UNDECIDED], Outcome.UNDECIDED),
        ([Outcome.UNDECIDED, Outcome.REPRODUCED], Outcome.REPRODUCED),
        ([Outcome.CONTRADICTED, Outcome.UNDECIDED], Outcome.CONTRADICTED),
        ([Outcome.CONTRADICTED, Outcome.UNDECIDED, Outcome.REPRODUCED], Outcome.DEPENDS),
    ],
)
def test_studies_that_disagree_make_it_depend_on_the_scale(outcomes: list[Outcome], expected: Outcome) -> None:
    assert joined(outcomes) is expected
    assert joined(outcomes[::-1]) is expected


@pytest.mark.parametrize("claim", TRAINED, ids=lambda claim: claim.id)
def test_the_command_that_would_settle_a_claim_makes_a_study_that_contrasts_its_pairs(claim: Claim) -> None:
    python, flag, module, *overrides = shlex.split(claim.command.replace("<ImageNet>", "x"))
    assert (python, flag, module) == ("python", "-m", "ablations.run")
    config = compose_config([*overrides, "device=cpu"])
    design = make_design(config)
    if config.replicates == AUTO:
        looks_of(design)
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
