r"""A study's tables as files: CSV with plain numbers, Markdown and LaTeX as papers print them, and numbers as macros.

The LaTeX needs booktabs and graphicx. A value without an interval (one replicate) is printed without one: there is
nothing to be sure of. Intervals are written as intervals and never as +-, which readers take for a standard deviation.
"""

from __future__ import annotations

import itertools
import math
import re
import string
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ablations.analysis.effects import factorial_effects
from ablations.analysis.study import Findings
from ablations.common.files import refusals_explained, write_whole
from ablations.common.metrics import METRICS
from ablations.design import Design
from ablations.reporting.tables.render import markdown_table
from ablations.reporting.tables.sections import Section, make_sections
from ablations.reporting.text.conclusions import step_time, top1_with_interval
from ablations.reporting.text.numbers import points, points_with_interval
from ablations.stats import VariantSummary
from ablations.storage.folder import GO_ON

_PICKED = "picked by a search, which flatters it"
_WIDE_NAMES = 26  # letters; longer ones are folded in a column of their own width


@dataclass(frozen=True)
class Table:
    """A table as it is printed: the first `names` columns are text, the others numbers; `note` is how to read it."""

    headers: tuple[str, ...]
    rows: list[list[str]]
    note: str
    names: int = 1


def write_tables(findings: Findings, sections: Sequence[Section] | None = None) -> list[Path]:
    """Writes a study's tables into `<folder>/tables` and returns what was written; nothing where no cell is finished.

    Args:
        findings: the study.
        sections: its further tables, where they are made already; making those of a search takes a while.

    Raises:
        UsageError: if the folder cannot be written.
    """
    if not findings.summaries:
        return []
    design, label = findings.design, f"tab:{findings.design.study}"
    texts = {"variants.csv": variants_frame(findings).to_csv(index=False, float_format="%.10g")}
    tables = {"variants": (variants_table(findings), variants_table(findings, is_short=True), label)}
    found = make_sections(findings) if sections is None else sections
    if found and found[0].rows:  # of a search, the front; the importances are no table for a paper
        name, frame = ("front", _front_frame(findings)) if design.is_search else ("effects", _effects_frame(findings))
        texts[f"{name}.csv"] = frame.to_csv(index=False, float_format="%.10g")
        section = found[0]
        note = f"{section.title}. {section.note} {_line(findings)}"
        table = Table(section.headers, section.rows, note, section.names)
        tables[name] = table, table, f"{label}-{name}"
    for name, (whole, short, own_label) in tables.items():
        lines = [*markdown_table(whole.headers, whole.rows), "", _asked(design, whole).note, ""]
        texts[f"{name}.md"] = "\n".join(lines)
        texts[f"{name}.tex"] = latex_table(_asked(design, short), own_label)
    texts["numbers.tex"] = numbers(findings)
    folder = findings.folder / "tables"
    with refusals_explained("results_dir", findings.folder, GO_ON, names_file=True):
        for name, text in texts.items():
            write_whole(folder / name, text)
    return [folder / name for name in texts]


def _asked(design: Design, table: Table) -> Table:
    """Puts the study's question before the note: a table on paper stands by itself."""
    return replace(table, note=f"{design.question} {table.note}".strip())


def variants_frame(findings: Findings) -> pd.DataFrame:
    """Returns a row a variant with a finished cell; what is not known or not measured is nan or empty.

    Accuracies are in percent, differences in points, step times over the plain network's. A search's variants have no
    verdict: they were picked for being good.
    """
    variants = {variant.name: variant for variant in findings.design.variants}
    rows = []
    for summary in findings.summaries:
        variant, contrast, ratio = variants[summary.variant], summary.contrast, summary.train_time_ratio
        difference = contrast.difference if contrast else None
        judged = None if findings.design.is_search else contrast
        rows.append(
            {
                "variant": summary.variant,
                "model": variant.model["name"],
                "attention": variant.attention["name"],
                "parameters": summary.parameters,
                "multiply_adds": findings.multiply_adds.get(summary.variant),
                "n": summary.top1.n,
                "diverged": summary.diverged,
                "top1": summary.top1.mean,
                "top1_low": summary.top1.low,
                "top1_high": summary.top1.high,
                "difference": difference.mean if difference else math.nan,
                "difference_low": difference.low if difference else math.nan,
                "difference_high": difference.high if difference else math.nan,
                "baseline": summary.baseline or "",
                "verdict": judged.verdict.value if judged else "",
                "reason": judged.reason if judged else _PICKED if contrast else "",
                "p": judged.p if judged else None,
                "step_time_ratio": ratio.median if ratio else math.nan,
                "step_time_ratio_low": ratio.low if ratio else math.nan,
                "step_time_ratio_high": ratio.high if ratio else math.nan,
                "images_per_second": summary.train_images_per_second,
                "peak_memory_mib": summary.peak_memory_mib,
            }
        )
    # Those of many variants are known of those alone that are shown.
    return pd.DataFrame(rows).astype({"multiply_adds": "Int64"})


def _effects_frame(findings: Findings) -> pd.DataFrame:
    """Returns a row an effect, in points."""
    effects = factorial_effects(findings.results.cells, findings.design)
    return pd.DataFrame(
        [
            {
                "effect": effect.name,
                "reference": effect.reference,
                "order": effect.order,
                "n": effect.estimate.n,
                "points": effect.estimate.mean,
                "low": effect.estimate.low,
                "high": effect.estimate.high,
            }
            for effect in effects
        ]
    )


def _front_frame(findings: Findings) -> pd.DataFrame:
    """Returns a row a variant that no other beats."""
    frame = findings.tradeoffs
    return frame[frame["on_front"]].drop(columns=["on_front", "picked", "fits"])


def variants_table(findings: Findings, is_short: bool = False) -> Table:
    """Lays the variants out as the paper does, with what an ablation has to say beside it.

    Args:
        findings: the study.
        is_short: leaves out the range of step times, and n where all variants have the same, which the note says: a
            page of paper has no room for them.
    """
    design = findings.design
    gflops = _gflops(findings.multiply_adds)
    headers = ["Variant", "n", "Param.", "GFLOPs", "Top-1 (%)", "Difference", "Verdict", "Step time", "Peak MiB"]
    rows = []
    for summary in findings.shown_summaries:
        contrast = summary.contrast
        difference = points_with_interval(contrast.difference) if contrast and contrast.difference else "no pair"
        rows.append(
            [
                summary.variant,
                summary.replicates,
                METRICS["parameters"].format(summary.parameters),
                gflops[summary.variant],
                top1_with_interval(summary.top1),
                "baseline" if summary.is_baseline else difference,
                contrast.verdict.value if contrast else "",
                step_time(summary.train_time_ratio, with_range=not is_short),
                METRICS["peak_memory_mib"].format(summary.peak_memory_mib),
            ]
        )
    left_out = {"Verdict"} if design.is_search else set()
    if is_short and len({summary.replicates for summary in findings.summaries}) == 1:
        left_out.add("n")
    kept = [column for column, header in enumerate(headers) if header not in left_out]
    rows = [[row[column] for column in kept] for row in rows]
    return Table(tuple(headers[column] for column in kept), rows, _variants_note(findings, rows, is_short))


def _variants_note(findings: Findings, rows: Sequence[Sequence[str]], is_short: bool) -> str:
    """Says of how many replicates the table is, how to read it, and under which protocol it holds."""
    design, summaries = findings.design, findings.summaries
    least, most = min(summary.top1.n for summary in summaries), max(summary.top1.n for summary in summaries)
    size = f"n = {least}" + (f" to {most}" if most > least else "")
    repeated = "means over replicates, with 95 % CI in brackets" if most > 1 else "one replicate, hence no intervals"
    parts = [f"Top-1: {repeated} ({size})."]
    against = "the baseline" if design.baseline_factor is None else "the variant that is otherwise equal"
    parts.append(f"Difference: in points, to {against} ({design.baseline}), paired by replicate.")
    if design.is_search:
        parts.append("The variants were picked by a search for being good, which flatters them: there are no verdicts.")
    else:
        parts.append(f"Verdicts: Holm-corrected, with a margin of {design.margin:g} points.")
    if any(summary.train_time_ratio for summary in summaries):
        parts.append(
            "Step time: of training, over the plain network's, median"
            + (" (lowest to highest)" if most > 1 and not is_short else "")
            + "; a plain network's own is an A/A comparison and shows the noise."
        )
    if any("–" in cell for row in rows for cell in row):
        parts.append("A dash: not measured.")
    if findings.shown_note:
        parts.append(findings.shown_note)
    return " ".join([*parts, _line(findings)])


def _line(findings: Findings) -> str:
    from ablations.reporting.figures.gallery import protocol_line

    line = f"Protocol: {protocol_line(findings.design, findings.results)}."
    return f"{line} {findings.missing}" if findings.missing else line


def _gflops(multiply_adds: Mapping[str, float]) -> dict[str, str]:
    """Writes multiply-adds in billions, all with the decimals that give the largest four digits."""
    largest = max(multiply_adds.values(), default=0) / 1e9
    decimals = max(0, 3 - math.floor(math.log10(largest))) if largest > 0 else 0
    return {name: f"{value / 1e9:,.{decimals}f}" for name, value in multiply_adds.items()}


def latex_table(table: Table, label: str) -> str:
    """Writes a table as a LaTeX `table` environment with the rules of booktabs, its note being the caption.

    Args:
        table: what is to be printed.
        label: for `\\ref`; what a label cannot hold becomes a hyphen.
    """
    columns, starts = [], []
    for column in range(len(table.headers)):
        widest = max((len(row[column]) for row in table.rows), default=0)
        is_wide = column < table.names and widest > _WIDE_NAMES
        columns.append(r"p{0.26\linewidth}" if is_wide else "l" if column < table.names else "r")
        starts.append(r"\raggedright " if is_wide else "")
    lines = [
        "% Needs \\usepackage{booktabs,graphicx}; a table that is wider than the text is scaled to it.",
        r"\begin{table}",
        r"  \centering",
        r"  \footnotesize",
        r"  \setlength{\tabcolsep}{3pt}",
        f"  \\caption{{{latex_text(table.note)}}}",
        f"  \\label{{{re.sub(r'[^A-Za-z0-9:.+=_-]', '-', label)}}}",
        r"  \medskip",
        r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        f"  \\begin{{tabular}}{{@{{}}{''.join(columns)}@{{}}}}",
        r"    \toprule",
        f"    {' & '.join(map(latex_text, table.headers))} \\\\",
        r"    \midrule",
    ]
    for row in table.rows:
        shown = [latex_text(cell) if column < table.names else _latex_number(cell) for column, cell in enumerate(row)]
        lines.append(f"    {' & '.join(start + cell for start, cell in zip(starts, shown, strict=True))} \\\\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}}", r"\end{table}", ""])


_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "#": r"\#", "$": r"\$", "%": r"\%", "&": r"\&", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", '"': r"\char34{}",
    "×": r"\texttimes{}", "–": r"\textendash{}",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Writes a text so that LaTeX prints it as it is, but for space, of which LaTeX prints one at a time.

    Letters beyond those of European languages are left to a LaTeX that knows them (XeLaTeX, LuaLaTeX).
    """
    words = "".join(letter if letter.isprintable() else " " for letter in text).split()
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in " ".join(words))
    escaped = re.sub(r"([-',])(?=\1)", r"\1{}", escaped)  # two hyphens would be joined to a dash, and so on
    # After the end of a row, a bracket would be taken for its option and a star for its starred form.
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped


def _latex_number(text: str) -> str:
    """Writes numbers for LaTeX: as text, but a minus is a minus and no hyphen."""
    return re.sub(r"(?<![\w.-])-(?=\d)", r"\\ensuremath{-}", latex_text(text))


def numbers(findings: Findings) -> str:
    r"""Returns a LaTeX file with a macro for each number that people write into sentences.

    The names of macros are those of study, variant and quantity, in letters: `\GroupsFourTopOne`. They are made from
    all variants of the study, so that they stay what they are while cells are still being trained.
    """
    design = findings.design
    study = macro_word(design.study) or "Study"
    whole = _study_numbers(findings)
    words = macro_words(design, {study + quantity for quantity in whole}, study)
    lines = [f"\\newcommand{{\\{study}{quantity}}}{{{value}}}" for quantity, value in whole.items()]
    example = lines[0].partition("{")[2].partition("}")[0]
    gflops = _gflops(findings.multiply_adds)
    for summary in findings.shown_summaries:
        lines.append(f"% {' '.join(summary.variant.split())}")
        for quantity, value in _variant_numbers(summary, gflops[summary.variant], design.is_search).items():
            name = f"\\{study}{words[summary.variant]}{quantity}"
            lines.append(f"\\newcommand{{{name}}}{{{value}}}")
            example = name if quantity == "TopOne" else example
    header = [
        f"% Numbers of the study {design.study}, for sentences. In the preamble: \\input{{numbers}}; in the text, as",
        f"%     The accuracy is {example}\\,\\%.",
        "% A number that the study does not have (an interval of one replicate, say) has no macro.",
        *([f"% {findings.shown_note}"] if findings.shown_note else []),
        "% In names, digits are spelled one by one and everything that is no letter is left out.",
    ]
    return "\n".join([*header, *lines, ""])


_QUANTITIES = (
    "N", "TopOne", "TopOneCI", "Difference", "DifferenceCI", "Verdict", "Parameters", "GFLOPs", "StepTime",
)  # fmt: skip
_DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


def macro_word(text: str) -> str:
    """Writes a name in letters alone: `groups=10` becomes `GroupsOneZero`; accents and other signs are dropped."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.findall("[A-Za-z]+|[0-9]", plain)
    return "".join(_DIGITS[int(word)] if word.isdigit() else word[0].upper() + word[1:] for word in words)


def macro_words(design: Design, taken: Iterable[str], study: str) -> dict[str, str]:
    """Returns the word of each variant, none of whose macros is another's or in `taken`; the later gets a letter."""
    used = set(taken)
    words = {}
    for variant in design.variants:
        word = macro_word(variant.name) or "Variant"
        for suffix in _suffixes():
            own = {f"{study}{word}{suffix}{quantity}" for quantity in _QUANTITIES}
            if not own & used:
                used |= own
                words[variant.name] = word + suffix
                break
    return words


def _suffixes() -> Iterator[str]:
    """Yields nothing, then B to Z, then AA, AB and so on."""
    yield ""
    yield from string.ascii_uppercase[1:]
    for length in itertools.count(2):
        yield from map("".join, itertools.product(string.ascii_uppercase, repeat=length))


def _study_numbers(findings: Findings) -> dict[str, str]:
    sizes = [summary.top1.n for summary in findings.summaries]
    least, most = min(sizes, default=0), max(sizes, default=0)
    return {
        "Replicates": f"{least} to {most}" if most > least else str(most),
        "Epochs": str(findings.design.protocol["train"]["epochs"]),
        "Margin": f"{findings.design.margin:g}",
    }


def _variant_numbers(summary: VariantSummary, gflops: str, is_search: bool) -> dict[str, str]:
    """Returns what is known of a variant, by quantity, as LaTeX that is at home in text and in formulas."""
    top1 = METRICS["top1"].format
    known = {"N": str(summary.top1.n), "TopOne": top1(summary.top1.mean)}
    if summary.top1.has_spread:
        known["TopOneCI"] = f"[{top1(summary.top1.low)}, {top1(summary.top1.high)}]"
    contrast = summary.contrast
    if contrast and contrast.difference:
        difference = contrast.difference
        known["Difference"] = points(difference.mean)
        if difference.has_spread:
            known["DifferenceCI"] = f"[{points(difference.low)}, {points(difference.high)}]"
    if contrast and not is_search:
        known["Verdict"] = contrast.verdict.value
    known |= {"Parameters": METRICS["parameters"].format(summary.parameters), "GFLOPs": gflops}
    if summary.train_time_ratio:
        known["StepTime"] = METRICS["train_time_ratio"].format(summary.train_time_ratio.median)
    # A comma between digits would be followed by space in a formula.
    return {name: re.sub(r"(?<=\d),(?=\d)", "{,}", _latex_number(value)) for name, value in known.items()}
