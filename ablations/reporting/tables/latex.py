"""LaTeX: tables with the rules of booktabs, and text and numbers so that they are printed as they are."""

from __future__ import annotations

import re

from ablations.reporting.tables.sections import Section

_WIDE_NAMES = 26  # letters; longer ones are folded in a column of their own width
_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "#": r"\#", "$": r"\$", "%": r"\%", "&": r"\&", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", '"': r"\char34{}",
    "×": r"\texttimes{}", "–": r"\textendash{}",
}  # fmt: skip


def latex_table(table: Section, caption: str, label: str) -> str:
    """Writes a table as a LaTeX environment that needs booktabs and graphicx; what a label cannot hold is a hyphen."""
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
        f"  \\caption{{{latex_text(caption)}}}",
        f"  \\label{{{re.sub(r'[^A-Za-z0-9:.+=_-]', '-', label)}}}",
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


def latex_text(text: str) -> str:
    """Writes a text so that LaTeX prints it as it is, but for space, of which LaTeX prints one at a time.

    Letters beyond those of European languages are left to a LaTeX that knows them (XeLaTeX, LuaLaTeX).
    """
    words = "".join(letter if letter.isprintable() else " " for letter in text).split()
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in " ".join(words))
    escaped = re.sub(r"([-',])(?=\1)", r"\1{}", escaped)  # two hyphens would be joined to a dash, and so on
    # After the end of a row, a bracket would be taken for its option and a star for its starred form.
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped


def latex_number(text: str) -> str:
    """Writes numbers for LaTeX: as text, but a minus is a minus and no hyphen."""
    return re.sub(r"(?<![\w.-])-(?=\d)", r"\\ensuremath{-}", latex_text(text))
