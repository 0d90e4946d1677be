"""What a study found, in plain words: verdicts, what they rest on, and what is in the way of believing them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from ablations.analysis.results import Results
from ablations.analysis.study import StudyAnalysis
from ablations.common.metrics import METRICS
from ablations.common.wording import count
from ablations.design import Design
from ablations.reporting.text.numbers import points, top1_with_interval
from ablations.reporting.text.selection import selection_sentences
from ablations.stats import Contrast, Looks, VariantSummary, Verdict
from ablations.stats.power import detectable, replicates_for, spread
from ablations.stats.significance import ALPHA
from ablations.stats.verdicts import family, missing_pairs, pairing_gain, undecided

_NAMED = 6  # replicates that are listed one by one
_TOLD = 60  # variants that each have a sentence


def conclusions(analysis: StudyAnalysis) -> list[str]:
    """Says what the study shows, how sure that is, and what is to be minded."""
    summaries, contrasts, results, design = analysis.summaries, analysis.contrasts, analysis.results, analysis.design
    selected = selection_sentences(analysis.selection) if analysis.selection else []
    if analysis.selection and results.cells.empty and results.diverged == {}:
        return [*selected, "No pick is confirmed yet: there are no results on the test images."]
    if not summaries:
        diverged = sum(results.diverged.values())
        how = "every one that was tried " + ("diverged" if diverged == len(results.unfinished) else "failed")
        return [f"No cell is finished: {how}."]
    sentences = [*selected, *_highest(summaries)]
    judged = [contrast for contrast in contrasts if contrast.verdict is not Verdict.NONE]
    if contrasts and not judged and all(summary.top1.n < 2 for summary in summaries):
        sentences.append("One replicate a variant: nothing says how sure the differences in the table are.")
    else:
        told = analysis.shown_contrasts
        if len(told) < len(contrasts):
            sentences.append(f"{tally(contrasts)} Those of variants that the table shows:")
        sentences += [contrast_sentence(contrast, design.margin) for contrast in told]
    if judged:
        sentences.append(_how_sure(len(contrasts), analysis.looks))
        sentences += _worth(results.cells, design, analysis.looks)
    if analysis.looks:
        sentences.append(_spent(summaries, contrasts, analysis.looks))
    return sentences + warnings(results, design)


def tally(contrasts: Sequence[Contrast]) -> str:
    """Counts the verdicts: `4 contrasts: 1 helps, 3 undecided.`"""
    verdicts = Counter(contrast.verdict for contrast in contrasts)
    words = {Verdict.NONE: "without a verdict"}
    counted = [f"{verdicts[verdict]} {words.get(verdict, verdict.value)}" for verdict in Verdict if verdicts[verdict]]
    return f"{count(len(contrasts), 'contrast')}: {', '.join(counted)}." if contrasts else ""


def contrast_sentence(contrast: Contrast, margin: float) -> str:
    """Says a verdict in a sentence.

    For instance `w/o CS against origin: equivalent within 0.2 points (n = 8, difference -0.03, 95 % CI -0.11 to
    +0.06).`
    """
    start = f"{contrast.variant} against {contrast.baseline}"
    difference = contrast.difference
    if difference is None:
        return f"{start}: no verdict, {contrast.reason}."
    numbers = f"n = {difference.n}, difference {points(difference.mean)}"
    if difference.has_spread:
        over = " over all looks" if contrast.look else ""
        numbers += f", 95 % CI{over} {points(difference.low)} to {points(difference.high)}"
    if contrast.verdict is Verdict.EQUIVALENT:
        more = "; there is a difference, but a smaller one" if contrast.p is not None and contrast.p <= ALPHA else ""
        return f"{start}: equivalent within {margin:g} points ({numbers}){more}."
    if contrast.p is not None:
        numbers += f", p = {contrast.p:.2g}" if contrast.p >= 0.001 else ", p = 0.001 or less"
    reason = f": {contrast.reason}" if contrast.reason else ""
    return f"{start}: {contrast.verdict.value} ({numbers}){reason}."


def warnings(results: Results, design: Design) -> list[str]:
    """Says what is missing, failed, or not alike."""
    sentences = []
    states = results.unfinished["state"]
    if failed := int((states == "failed").sum()):
        verb = "is" if failed == 1 else "are"
        sentences.append(f"{count(failed, 'cell')} failed and {verb} in none of these means.")
    for variant, number in results.diverged.items():
        finished = int((results.cells["variant"] == variant).sum())
        mean = "its mean is of the others, which flatters it" if finished else "it has no mean"
        sentences.append(f"{variant} diverged in {number} of {count(finished + number, 'replicate')}: {mean}.")
    missing = int(states.isin(["missing", "interrupted", "running"]).sum())
    if missing:
        sentences.append(f"{_are(missing, 'cell')} not trained yet; what is said here is of the others.")
    sentences += _unpaired(missing_pairs(results.cells, design.baselines), design.baselines)
    return sentences + [f"Protocols are mixed: {mixture}" for mixture in _mixtures(results)]


def _unpaired(replicates: Mapping[str, Sequence[int]], baselines: Mapping[str, str]) -> list[str]:
    """Says which replicates only a variant or its baseline has."""
    if len(replicates) > _TOLD:
        lacking = f"Of {count(len(replicates), 'variant')} and what they are compared with"
        return [f"{lacking} only one has some replicate, which the contrast leaves out."]
    return [
        f"Of {variant} and {baselines[variant]} only one has {_listed(own)}, which the contrast leaves out."
        for variant, own in replicates.items()
    ]


def _mixtures(results: Results) -> list[str]:
    """Says what was not trained alike."""
    sentences = []
    for name, own in results.cells.groupby("variant", sort=False)["attention_by"]:
        ways = sorted(set(own.dropna()) - {""})
        if len(ways) > 1:
            sentences.append(f"{name} was computed by {' and by '.join(ways)}.")
    parted = results.cells["variant"][results.cells["micro_batches"] > 1]
    for variant in dict.fromkeys(parted):
        cells = f"{count(int((parted == variant).sum()), 'cell')} of {variant}"
        sentences.append(
            f"{cells} ran out of memory and took each batch in two parts, which batch norm sees one by one."
        )
    if len(results.environments) > 1:
        sentences.append(
            f"the cells were trained in {len(results.environments)} different environments, listed below: speeds are "
            "not comparable, and accuracies only as far as the environments are."
        )
    return sentences


def detection_sentence(n: int, cells: pd.DataFrame, baselines: Mapping[str, str], share: float = 1.0) -> str | None:
    """Says which difference a study of so many replicates detects; None where nothing is known of the spread."""
    known = spread(cells, baselines)
    if known is None or known.value <= 0:
        return None
    contrasts = len(family(baselines))
    found = detectable(known.value, n, contrasts, share)
    if found is None:
        return f"With {count(n, 'replicate')} the test can decide none of {count(contrasts, 'contrast')}."
    bounds = [detectable(sd, n, contrasts, share) for sd in (known.low, known.high)]
    low, high = (f"{bound:.2g}" for bound in bounds if bound is not None)
    return (
        f"With {count(n, 'replicate')} a difference of {found:.2g} points is found in 80 % of studies ({low} to "
        f"{high}, as paired differences have a standard deviation of {known.value:.2g}, 95 % CI {known.low:.2g} to "
        f"{known.high:.2g})."
    )


def _highest(summaries: Sequence[VariantSummary]) -> list[str]:
    """Says which variants are highest."""
    if len(summaries) < 3 or len({summary.baseline for summary in summaries}) > 1:
        return []  # of different backbones, the highest says nothing about attention
    highest = max(summary.top1.mean for summary in summaries)
    best, *ties = (summary for summary in summaries if summary.top1.mean > highest - 1e-9)
    called = [f"{one.variant} (the baseline)" if one.is_baseline else one.variant for one in (best, *ties)]
    shown = METRICS["top1"].format(highest) if ties else top1_with_interval(best.top1)
    flattered = ", picked after seeing the results, which flatters it"
    minded = flattered if best.top1.n > 1 else "; one replicate says nothing about how sure that is"
    return [f"Highest: {' and '.join(called)}, {shown} % (n = {best.top1.n}){minded}."]


def _how_sure(contrasts: int, looks: Looks | None) -> str:
    of_these = f"Holm's correction for {count(contrasts, 'contrast')}" if contrasts > 1 else "a single contrast"
    text = (
        f"Verdicts are by paired tests over seeds, on one set of data, with {of_these}: helps and hurts by the "
        "permutation test of signs, whose p is given, equivalent by two one-sided t-tests. "
    )
    if looks:
        sizes = ", ".join(map(str, looks.sizes))
        return f"{text}They and the intervals hold although the study was looked at with {sizes} replicates."
    return (
        f"{text}Intervals are Student's, each on its own (the bootstrap's, which are too narrow for so few replicates, "
        "are in figures/forest.csv). Adding replicates after a look at the verdicts makes them less sure; "
        "replicates=auto allows for that."
    )


def _worth(cells: pd.DataFrame, design: Design, looks: Looks | None) -> list[str]:
    """Says what pairing gained, and what the study could have seen."""
    sentences = []
    gain = pairing_gain(cells, design.baselines)
    if gain is not None:
        sentences.append(
            f"Pairing by replicate was worth {gain:.2g} times as many replicates (the variance of unpaired differences "
            "over that of paired ones)."
        )
    known = None if looks else spread(cells, design.baselines)
    found = detection_sentence(known.n, cells, design.baselines) if known else None
    if known and found:
        needed = replicates_for(design.margin, known.value, len(family(design.baselines)))
        wanted = f"{needed:,}" if needed else "more than 100,000"
        sentences.append(f"{found} One of {design.margin:g}, the margin, would take {wanted} replicates.")
    return sentences


def _spent(summaries: Sequence[VariantSummary], contrasts: Sequence[Contrast], looks: Looks) -> str:
    """Says what replicates=auto has spent where."""
    trained = sum(summary.top1.n for summary in summaries)
    most = len(summaries) * looks.sizes[-1]
    ready = [contrast for contrast in contrasts if contrast.is_decided and contrast.look]
    decided = [f"{contrast.variant} was decided with {contrast.look}" for contrast in ready]
    if len(decided) > _TOLD:
        decided = [f"{len(decided):,} contrasts were decided with {looks.sizes[0]} to {looks.sizes[-1]}"]
    if others := [contrast.variant for contrast in undecided(contrasts)]:
        decided.append(f"{'undecided' if decided else 'Undecided'} so far: {_named(others)}")
    return f"Replicates were added where verdicts were open: {trained} cells of {most} at most. {'; '.join(decided)}."


def _are(number: int, noun: str) -> str:
    return f"{count(number, noun)} {'is' if number == 1 else 'are'}"


def _listed(replicates: Sequence[int]) -> str:
    shown = ", ".join(map(str, replicates[:_NAMED])) + (", ..." if len(replicates) > _NAMED else "")
    return f"{'replicate' if len(replicates) == 1 else 'replicates'} {shown}"


def _named(names: Sequence[str]) -> str:
    few = ", ".join(names[:_NAMED])
    return ", ".join(names) if len(names) <= _TOLD else f"{few} and {len(names) - _NAMED:,} others"
