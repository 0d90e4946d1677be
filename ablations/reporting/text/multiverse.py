"""Verdicts under several protocols as text: agreement, and effects that differ between protocols."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ablations.analysis.multiverse import Agreement, Interaction, MultiverseAnalysis, agreements
from ablations.common.metrics import METRICS, Metric
from ablations.common.settings import flatten
from ablations.common.wording import count, listed
from ablations.reporting.text.declaration import exploratory_clause
from ablations.reporting.text.numbers import difference_with_interval
from ablations.reporting.text.scope import data_line, missing_sentence
from ablations.stats import Verdict
from ablations.stats.significance import ALPHA, FLIPPED

_WORDS = {
    Agreement.AGREES: "agree",
    Agreement.COMPATIBLE: "compatible",
    Agreement.CONTRADICTS: "contradict",
    Agreement.OPEN: "undecided {preposition} all",
}
_BEFORE = {
    Agreement.AGREES: "",
    Agreement.COMPATIBLE: "compatible verdicts, ",
    Agreement.CONTRADICTS: "contradicting verdicts, ",
    Agreement.OPEN: "",
}
_PROTOCOL = ("protocol", "protocols", "under")
_NAMED = 3  # pairs of protocols with different effects that are named
_TOLD = 60  # maximum number of contrasts with a sentence each

# The unit that contrasts are compared between: its singular, plural, and preposition.
Noun = tuple[str, str, str]


def agreement_word(found: Agreement, noun: Noun = _PROTOCOL) -> str:
    """Returns the table entry for the agreement of verdicts on a contrast."""
    return _WORDS[found].format(preposition=noun[2])


def multiverse_sentences(analysis: MultiverseAnalysis) -> list[str]:
    """Returns sentences on agreement, differing effects, the tests, and missing results."""
    sentences = []
    if analysis.agreements:
        sentences.append(tally_sentence(analysis.agreements.values(), len(analysis.studies)))
        if len(analysis.agreements) <= _TOLD:
            sentences += agreement_sentences(analysis.frame)
        sentences += interaction_sentences(analysis.interactions, METRICS[analysis.metric])
    else:
        sentences.append("Results are stored for one protocol only, so protocols cannot be compared.")
    method = method_sentence(analysis.frame, len(analysis.studies), has_interims=analysis.has_interims)
    return [*sentences, method, *_exploratory(analysis), *missing_sentences(analysis)]


def tally_sentence(found: Iterable[Agreement], protocols: int, noun: Noun = _PROTOCOL) -> str:
    """Counts the contrasts by agreement: `4 contrasts under 3 protocols: 1 agree, 3 compatible.`"""
    counts = Counter(found)
    counted = [f"{counts[kind]} {agreement_word(kind, noun)}" for kind in _WORDS if counts[kind]]
    contrasts, compared = count(sum(counts.values()), "contrast"), count(protocols, noun[0], noun[1])
    return f"{contrasts} {noun[2]} {compared}: {', '.join(counted)}."


def agreement_sentences(frame: pd.DataFrame, noun: Noun = _PROTOCOL) -> list[str]:
    """Returns a sentence for each contrast with its verdicts and their agreement.

    For instance `sa against none: compatible verdicts, helps under quick; undecided under short.`
    """
    sentences = []
    for (variant, baseline), found in agreements(frame).items():
        own = frame[(frame["variant"] == variant) & (frame["baseline"] == baseline)]
        protocols: dict[str, list[str]] = {}
        for protocol, verdict in zip(own["protocol"], own["verdict"], strict=True):
            protocols.setdefault(str(verdict), []).append(str(protocol))
        under = {
            verdict: f"all {noun[1]}" if len(protocols) == 1 else listed(names) for verdict, names in protocols.items()
        }
        clauses = "; ".join(f"{verdict} {noun[2]} {names}" for verdict, names in under.items())
        sentences.append(f"{variant} against {baseline}: {_BEFORE[found]}{clauses}.")
    return sentences


def interaction_sentences(tested: Sequence[Interaction], metric: Metric, noun: Noun = _PROTOCOL) -> list[str]:
    """Returns sentences on effects that differ between protocols; nothing if this was not tested."""
    if not tested:
        return []
    differing = [one for one in tested if one.p <= ALPHA]
    if not differing:
        return [f"No effect differs significantly between two {noun[1]} (smallest corrected p: {_p(tested[0].p)})."]
    named = "; ".join(_interaction_clause(one, metric) for one in differing[:_NAMED])
    more = f"; and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
    return [f"Effects that differ between {noun[1]}: {named}{more} (difference of the differences [95 % CI])."]


def _interaction_clause(one: Interaction, metric: Metric) -> str:
    return (
        f"{one.variant} against {one.baseline}, {one.protocol} minus {one.other}: "
        f"{difference_with_interval(one.estimate, metric)}, corrected p = {_p(one.p)}"
    )


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.001 else "0.001 or less"


def method_sentence(frame: pd.DataFrame, protocols: int, noun: Noun = _PROTOCOL, *, has_interims: bool) -> str:
    """Returns the tests and the correction of verdicts in sentences."""
    own = "The report of each study corrects for its own contrasts only."
    n = frame["n"]
    if not (n > 1).any():
        return "No contrast has two replicates, so no verdicts are available."
    family = f"the {count(int((n > 1).sum()), 'contrast')} of all {noun[1]}"
    if has_interims:
        return (
            f"Each {noun[0]} was judged with interim analyses of its own, and p-values are corrected for "
            f"{count(protocols, noun[0], noun[1])} (Bonferroni): family-wise error at most 5 % over {family}. "
            f"{own}"
        )
    tests = []
    if (n >= FLIPPED).any():
        tests.append(
            f"joint sign flips of whole replicates {noun[2]} all {noun[1]}, which assume symmetric differences"
        )
    if (n[n > 1] < FLIPPED).any():
        tests.append(
            f"with fewer than {FLIPPED} replicates, t-tests with variances moderated within each {noun[0]} and Holm's "
            "correction, which assume normal differences"
        )
    return f"Verdicts are on {family} as one family (family-wise error at most 5 %): {'; '.join(tests)}. {own}"


def margin_text(margins: Mapping[str, float], metric: Metric) -> str:
    """Formats the margins of protocols: `0.2 points`, or `1 point (quick and short), 0.2 points (cifar10)`."""
    return by_protocol({name: metric.quantity(margin) for name, margin in margins.items()})


def by_protocol(texts: Mapping[str, str]) -> str:
    """Formats texts by protocol, grouping equal ones: `8`, or `8 (quick and short), 3 (cifar10)`."""
    names: dict[str, list[str]] = {}
    for name, text in texts.items():
        names.setdefault(text, []).append(name)
    if len(names) == 1:
        return next(iter(names))
    return ", ".join(f"{text} ({listed(own)})" for text, own in names.items())


def _exploratory(analysis: MultiverseAnalysis) -> list[str]:
    clauses: dict[str, list[str]] = {}
    for name, study in analysis.studies.items():
        if clause := exploratory_clause(study):
            clauses.setdefault(clause, []).append(name)
    return [f"Verdicts under {listed(names)} are {clause}." for clause, names in clauses.items()]


def missing_sentences(analysis: MultiverseAnalysis) -> list[str]:
    """Returns sentences on protocols without cells, and on missing cells of others."""
    sentences = []
    if missing := analysis.missing:
        sentences.append(
            f"No results are stored for {listed(missing)}; the same `run` command trains the missing cells."
        )
    for name, study in analysis.studies.items():
        if missing_cells := missing_sentence(study.results):
            sentences.append(f"Under {name}: {missing_cells[0].lower()}{missing_cells[1:]}")
    return sentences


def protocol_lines(analysis: MultiverseAnalysis) -> dict[str, str]:
    """Returns a line for each protocol with the data, backbone and recipe of its cells."""
    lines = {}
    for name, study in analysis.studies.items():
        protocol = study.design.protocol
        models = " and ".join(dict.fromkeys(variant.model["name"] for variant in study.design.variants))
        train = protocol["train"]
        lines[name] = (
            f"{data_line(protocol['data'])}, {models}, {count(train['epochs'], 'epoch')}, {train['precision']}"
        )
    return lines


def differing_options(analysis: MultiverseAnalysis) -> dict[str, dict[str, str]]:
    """Returns the options that differ between protocols, each with its values by protocol."""
    options = {
        name: flatten(study.design.protocol) | {"model": study.config.model.name}
        for name, study in analysis.studies.items()
    }
    names = dict.fromkeys(option for known in options.values() for option in known)
    found = {}
    for option in names:
        values = {name: str(known.get(option, "–")) for name, known in options.items()}
        if len(set(values.values())) > 1:
            found[option] = values
    return found


def machine_text(analysis: MultiverseAnalysis) -> str:
    """Returns the names of the machines that trained the cells."""
    machines = []
    for study in analysis.studies.values():
        processor = "gpu" if study.design.protocol["device"] == "cuda" else "cpu"
        machines += [known[processor] for known in study.results.environments]
    return " and ".join(dict.fromkeys(machines))


def is_decided(verdict: str) -> bool:
    """Whether a verdict is decided: helps, hurts or equivalent."""
    return Verdict(verdict) in (Verdict.HELPS, Verdict.HURTS, Verdict.EQUIVALENT)
