"""LaTeX: the printed form of a text, and compilation of tables."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path


def compile_tables(folder: Path, text: str = "", engine: str = "pdflatex") -> str:
    """Compiles a document with a text and the tables in a folder; returns the output of LaTeX."""
    document = (
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\input{numbers}\\begin{document}"
        f"{text} \\input{{variants}}\\end{{document}}"
    )
    (folder / "document.tex").write_text(document, encoding="utf-8")
    process = subprocess.run(
        [engine, "-interaction=nonstopmode", "-halt-on-error", "document.tex"],
        cwd=folder, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-2000:]
    return process.stdout


def printed(latex: str) -> str:
    """The printed form of LaTeX without formulas; raises an error if LaTeX would not print it."""
    named = {
        "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">",
        "textbar": "|", "textasciigrave": "`", "char34": '"', "texttimes": "×", "textendash": "–",
    }  # fmt: skip
    output, at, depth, last = "", 0, 0, ""
    while at < len(latex):
        token = latex[at]
        if command := re.match(r"\\([a-z]+[0-9]*)\{\}", latex[at:]):
            output, token = output + named[command[1]], command[0]
        elif escaped := re.match(r"\\([{}#$%&_])", latex[at:]):
            output, token = output + escaped[1], escaped[0]
        elif token in "{}":
            depth += 1 if token == "{" else -1
            assert depth >= 0
        else:
            assert token not in "\\#$%&_~^", token
            assert not (token == last and token in "-',`"), "a ligature"
            assert not (token == " " and last == " ")
            output += token
        last, at = token, at + len(token)
    assert depth == 0
    return output
