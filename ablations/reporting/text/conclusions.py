"""The conclusions of a study as text: verdicts, the tests behind them, and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ablations.analysis.results import Results
from ablations.analysis.study import StudyAnalysis
from ablations.common.metrics import METRICS
from ablations.common.wording import count
from ablations.design import Design
from ablations.reporting.text.numbers import mean_with_interval
from ablations.reporting.text.reach import Reach, reach_sentences
from ablations.reporting.text.scope import replication_clause
from ablations.reporting.text.selection import selection_sentences
from ablations.reporting.text.verdicts import contrast_sentence, method_sentences, tally
from ablations.stats import Contrast, InterimAnalyses, VariantSummary, Verdict
from ablations.stats.verdicts import missing_pairs, undecided

_NAMED = 6  # maximum number of replicates listed individually
_TOLD = 60  # maximum number of variants with a sentence each


def conclusions(analysis: StudyAnalysis) -> list[str]:
    """Returns sentences on verdicts, methods, power and warnings."""
    summaries, contrasts, results, design = analysis.summaries, analysis.contrasts, analysis.results, analysis.design
    selected = selection_sentences(analysis.selection) if analysis.selection else []
    if analysis.selection and results.cells.empty and results.diverged == {}:
        return [*selected, "No pick is confirmed yet: there are no results on the test images."]
    if not summaries and analysis.tuned and results.unfinished["state"].eq("missing").all():
        return ["No replicate is trained yet; tuning trials come first."]
    if not summaries:
        diverged = sum(results.diverged.values())
        how = "all attempts " + ("diverged" if diverged == len(results.unfinished) else "failed")
        return [f"No cell is finished: {how}."]
    sentences = [*selected, *_highest(summaries)]
    judged = [contrast for contrast in contrasts if contrast.verdict is not Verdict.NONE]
    if contrasts and not judged and all(summary.top1.n < 2 for summary in summaries):
        sentences.append("With one replicate per variant, the uncertainty of the differences in the table is unknown.")
    else:
        shown = analysis.shown_contrasts
        if len(shown) < len(contrasts):
            sentences.append(f"{tally(contrasts)} Contrasts of the variants in the table:")
        metric = METRICS[design.metric]
        sentences += [contrast_sentence(contrast, design.margin, metric) for contrast in shown]
    if judged:
        sentences.append(method_sentences(contrasts, analysis.interims, replication_clause(design.protocol["data"])))
        sentences += reach_sentences(Reach.trained(design, results.cells, analysis.interims))
    if analysis.interims:
        sentences.append(_replicates_sentence(summaries, contrasts, analysis.interims))
    return sentences + warnings(results, design)


def warnings(results: Results, design: Design) -> list[str]:
    """Returns sentences on missing or failed cells and on mixed protocols."""
    sentences = []
    states = results.unfinished["state"]
    if failed := int((states == "failed").sum()):
        verb = "is" if failed == 1 else "are"
        sentences.append(f"{count(failed, 'cell')} failed and {verb} excluded from these means.")
    if unreadable := int((states == "unreadable").sum()):
        verb = "is" if unreadable == 1 else "are"
        sentences.append(f"{count(unreadable, 'stored cell')} cannot be read and {verb} excluded from these means.")
    for variant, number in results.diverged.items():
        finished = int((results.cells["variant"] == variant).sum())
        mean = "its mean is over the others and therefore optimistic" if finished else "it has no mean"
        sentences.append(f"{variant} diverged in {number} of {count(finished + number, 'replicate')}: {mean}.")
    if missing := int(states.isin(["missing", "interrupted", "running"]).sum()):
        verb = "is" if missing == 1 else "are"
        sentences.append(f"{count(missing, 'cell')} {verb} not trained yet; this report covers the others.")
    cells = results.cells
    if design.baseline_replicates > design.replicates:  # extra baseline replicates are averaged into the pairs
        cells = cells[cells["replicate"] < design.replicates]
    sentences += _unpaired(missing_pairs(cells, design.baselines), design.baselines)
    return sentences + [f"Protocols are mixed: {mixture}" for mixture in _mixtures(results)]


def _unpaired(replicates: Mapping[str, Sequence[int]], baselines: Mapping[str, str]) -> list[str]:
    """Returns sentences on replicates that only a variant or only its baseline has."""
    if len(replicates) > _TOLD:
        lacking = f"Of {count(len(replicates), 'variant')} and what they are compared with"
        return [f"{lacking} only one has some replicate, which the contrast leaves out."]
    return [
        f"Of {variant} and {baselines[variant]} only one has {_listed(numbers)}, which the contrast leaves out."
        for variant, numbers in replicates.items()
    ]


def _mixtures(results: Results) -> list[str]:
    """Returns sentences on cells that were not trained in the same way."""
    sentences = []
    for name, ways_of in results.cells.groupby("variant", sort=False)["attention_by"]:
        ways = sorted(set(ways_of.dropna()) - {""})
        if len(ways) > 1:
            sentences.append(f"{name} was computed by {' and by '.join(ways)}.")
    parted = results.cells["variant"][results.cells["micro_batches"] > 1]
    for variant in dict.fromkeys(parted):
        cells = f"{count(int((parted == variant).sum()), 'cell')} of {variant}"
        sentences.append(
            f"{cells} ran out of memory and used two micro-batches per batch, which changes the statistics of batch "
            "norm."
        )
    if len(results.environments) > 1:
        sentences.append(
            f"the cells were trained in {len(results.environments)} different environments (listed below): speeds are "
            "not comparable, and accuracies may differ between environments."
        )
    return sentences


def _highest(summaries: Sequence[VariantSummary]) -> list[str]:
    """Returns a sentence on the variants with the highest top-1."""
    if len(summaries) < 3 or len({summary.baseline for summary in summaries}) > 1:
        return []  # with several backbones, the highest is not informative about attention
    highest = max(summary.top1.mean for summary in summaries)
    best, *ties = (summary for summary in summaries if summary.top1.mean > highest - 1e-9)
    called = [f"{one.variant} (the baseline)" if one.is_baseline else one.variant for one in (best, *ties)]
    shown = METRICS["top1"].format(highest) if ties else mean_with_interval(best.top1)
    optimistic = ", selected post hoc, so its estimate is optimistic (winner's curse)"
    caveat = optimistic if best.top1.n > 1 else "; a single replicate gives no estimate of uncertainty"
    return [f"Highest: {' and '.join(called)}, {shown} % (n = {best.top1.n}){caveat}."]


def _replicates_sentence(
    summaries: Sequence[VariantSummary], contrasts: Sequence[Contrast], interims: InterimAnalyses
) -> str:
    """Returns a sentence on the replicates that replicates=auto added."""
    trained = sum(summary.top1.n for summary in summaries)
    most = len(summaries) * interims.sizes[-1]
    ready = [contrast for contrast in contrasts if contrast.is_decided and contrast.interim]
    decided = [f"{contrast.variant} was decided at {contrast.interim}" for contrast in ready]
    if len(decided) > _TOLD:
        decided = [f"{len(decided):,} contrasts were decided at {interims.sizes[0]} to {interims.sizes[-1]}"]
    if others := [contrast.variant for contrast in undecided(contrasts)]:
        decided.append(f"{'undecided' if decided else 'Undecided'} so far: {_named(others)}")
    return f"Replicates were added for undecided contrasts: {trained} of at most {most} cells. {'; '.join(decided)}."


def _listed(replicates: Sequence[int]) -> str:
    shown = ", ".join(map(str, replicates[:_NAMED])) + (", ..." if len(replicates) > _NAMED else "")
    return f"{'replicate' if len(replicates) == 1 else 'replicates'} {shown}"


def _named(names: Sequence[str]) -> str:
    few = ", ".join(names[:_NAMED])
    return ", ".join(names) if len(names) <= _TOLD else f"{few} and {len(names) - _NAMED:,} more"
