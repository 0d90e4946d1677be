"""LaTeX: a study's tables in the style of booktabs, and its numbers as macros for the text of a paper."""

from __future__ import annotations

import itertools
import re
import string
import unicodedata
from collections.abc import Iterable

from ablations.analysis.costs import VariantCost
from ablations.analysis.study import StudyAnalysis
from ablations.common.metrics import METRICS
from ablations.design import Design
from ablations.reporting.tables.sections import Section
from ablations.reporting.text.numbers import in_gflops
from ablations.reporting.text.scope import shown_sentence
from ablations.stats import VariantSummary

_WIDE_NAMES = 26  # letters; longer ones are wrapped in a column of fixed width
_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "#": r"\#", "$": r"\$", "%": r"\%", "&": r"\&", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", '"': r"\char34{}",
    "×": r"\texttimes{}", "–": r"\textendash{}",
}  # fmt: skip
_NO_LETTERS = ("Cc", "Cs", "Zl", "Zp")  # control characters, surrogates, separators of lines and paragraphs
# Latin letters, and the punctuation of the encodings T1 and TS1.
_KNOWN_TO_PDFLATEX = re.compile("[\u0000-\u017f\u2013-\u2026\u2030\u20ac\u2122]")
_NAMED = 8  # characters in a comment
_QUANTITIES = (
    "N", "TopOne", "TopOneCI", "Difference", "DifferenceCI", "Verdict", "Parameters", "GFLOPs", "StepTime",
)  # fmt: skip
_DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


def latex_table(table: Section, caption: str, label: str) -> str:
    """Returns a table as a LaTeX environment that requires booktabs and graphicx.

    A character that a label cannot contain is replaced by its code point, so that labels of studies are unique.
    """
    columns, starts = [], []
    for column in range(len(table.headers)):
        widest = max((len(row[column]) for row in table.rows), default=0)
        is_wide = column < table.names and widest > _WIDE_NAMES
        columns.append(r"p{0.26\linewidth}" if is_wide else "l" if column < table.names else "r")
        starts.append(r"\raggedright " if is_wide else "")
    lines = [
        "% Requires \\usepackage{booktabs,graphicx}; a table wider than the text is scaled down.",
        *_needs_of(caption + "".join(itertools.chain(table.headers, *table.rows))),
        r"\begin{table}",
        r"  \centering",
        r"  \footnotesize",
        r"  \setlength{\tabcolsep}{3pt}",
        f"  \\caption{{{latex_text(caption)}}}",
        f"  \\label{{{re.sub(r'[^A-Za-z0-9:.+=_-]', lambda sign: f'u{ord(sign[0]):x}', label)}}}",
        r"  \medskip",
        r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        f"  \\begin{{tabular}}{{@{{}}{''.join(columns)}@{{}}}}",
        r"    \toprule",
        f"    {' & '.join(map(latex_text, table.headers))} \\\\",
        r"    \midrule",
    ]
    for row in table.rows:
        shown = [latex_text(cell) if column < table.names else latex_number(cell) for column, cell in enumerate(row)]
        lines.append(f"    {' & '.join(start + cell for start, cell in zip(starts, shown, strict=True))} \\\\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}}", r"\end{table}", ""])


def _needs_of(text: str) -> list[str]:
    """Returns LaTeX comments with the requirements of a text that is not plain English."""
    signs = {sign for sign in latex_text(text) if not sign.isascii()}
    beyond = sorted(sign for sign in signs if not _KNOWN_TO_PDFLATEX.match(sign))
    if beyond:
        shown = " ".join(beyond[:_NAMED]) + (" ..." if len(beyond) > _NAMED else "")
        return [f"% Compile with XeLaTeX or LuaLaTeX and a font that has these characters: {shown}"]
    return ["% Accented letters require \\usepackage[T1]{fontenc}."] if any(map(str.isalpha, signs)) else []


def latex_text(text: str) -> str:
    """Escapes a text for LaTeX; whitespace is collapsed.

    Letters of other than European scripts require XeLaTeX or LuaLaTeX.
    """
    words = "".join(" " if unicodedata.category(letter) in _NO_LETTERS else letter for letter in text).split()
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in " ".join(words))
    escaped = re.sub(r"([-',])(?=\1)", r"\1{}", escaped)  # prevents ligatures, such as two hyphens to a dash
    # After the end of a row, LaTeX would read a bracket or a star as an argument.
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped


def latex_number(text: str) -> str:
    """Escapes numbers for LaTeX, with a minus sign instead of a hyphen."""
    return re.sub(r"(?<![\w.-])-(?=\d)", r"\\ensuremath{-}", latex_text(text))


def number_macros(analysis: StudyAnalysis) -> str:
    r"""Returns a LaTeX file with a macro for each number that a text may cite.

    A macro's name consists of study, variant and quantity in letters: `\GroupsFourTopOne`. Names depend on all variants
    of the study, so that they do not change during training.
    """
    design = analysis.design
    study = macro_word(design.study) or "Study"
    sizes = [summary.top1.n for summary in analysis.summaries]
    least, most = min(sizes, default=0), max(sizes, default=0)
    whole = {
        "Replicates": f"{least} to {most}" if most > least else str(most),
        "Epochs": str(design.protocol["train"]["epochs"]),
        "Margin": f"{design.margin:g}",
    }
    words = macro_words(design, {study + quantity for quantity in whole}, study)
    lines = [f"\\newcommand{{\\{study}{quantity}}}{{{value}}}" for quantity, value in whole.items()]
    example = lines[0].partition("{")[2].partition("}")[0]
    gflops = in_gflops(analysis.multiply_adds)
    costs = {summary.variant: analysis.costs.of(summary.variant) for summary in analysis.summaries if analysis.costs}
    for summary in analysis.shown_summaries:
        lines.append(f"% {' '.join(summary.variant.split())}")
        for quantity, value in _variant_numbers(
            summary, costs.get(summary.variant), gflops[summary.variant], design
        ).items():
            name = f"\\{study}{words[summary.variant]}{quantity}"
            lines.append(f"\\newcommand{{{name}}}{{{value}}}")
            example = name if quantity == "TopOne" else example
    header = [
        f"% Numbers of the study {design.study}, for use in text. In the preamble: \\input{{numbers}}; in the text, "
        "for example",
        f"%     The accuracy is {example}\\,\\%.",
        "% Numbers that are not available (such as the interval of a single replicate) have no macro.",
        *([] if analysis.shows_all else [f"% {shown_sentence(analysis)}"]),
        "% In names, digits are spelled out and characters other than letters are removed.",
    ]
    return "\n".join([*header, *lines, ""])


def macro_word(text: str) -> str:
    """Converts a name to letters: `groups=10` becomes `GroupsOneZero`; accents and other signs are removed."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.findall("[A-Za-z]+|[0-9]", plain)
    return "".join(_DIGITS[int(word)] if word.isdigit() else word[0].upper() + word[1:] for word in words)


def macro_words(design: Design, taken: Iterable[str], study: str) -> dict[str, str]:
    """Returns a word for each variant, with a letter appended if its macros would clash with others or `taken`."""
    used = set(taken)
    words = {}
    for variant in design.variants:
        word = macro_word(variant.name) or "Variant"
        lengths = itertools.count()
        suffixes = (
            "".join(letters) for n in lengths for letters in itertools.product(string.ascii_uppercase, repeat=n)
        )
        for suffix in suffixes:  # empty, then B to Z, then AA, AB and so on
            macros = {f"{study}{word}{suffix}{quantity}" for quantity in _QUANTITIES}
            if suffix != "A" and not macros & used:
                used |= macros
                words[variant.name] = word + suffix
                break
    return words


def _variant_numbers(summary: VariantSummary, cost: VariantCost | None, gflops: str, design: Design) -> dict[str, str]:
    """Returns the numbers of a variant by quantity, as LaTeX for text and formulas."""
    top1, written = METRICS["top1"].format, METRICS[design.metric].format_difference
    numbers = {"N": str(summary.top1.n), "TopOne": top1(summary.top1.mean)}
    if summary.top1.has_spread:
        numbers["TopOneCI"] = f"[{top1(summary.top1.low)}, {top1(summary.top1.high)}]"
    contrast = summary.contrast
    if contrast and contrast.difference:
        difference = contrast.difference
        numbers["Difference"] = written(difference.mean)
        if difference.has_spread:
            numbers["DifferenceCI"] = f"[{written(difference.low)}, {written(difference.high)}]"
    if contrast:
        numbers["Verdict"] = contrast.verdict.value
    numbers |= {"Parameters": METRICS["parameters"].format(summary.parameters), "GFLOPs": gflops}
    if cost and cost.train_time:
        numbers["StepTime"] = METRICS["train_time_ratio"].format(cost.train_time.mean)
    # In a formula LaTeX adds space after a comma.
    return {name: re.sub(r"(?<=\d),(?=\d)", "{,}", latex_number(value)) for name, value in numbers.items()}
