"""README files: links, images, commands, code, option tables, spelling and length."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from ablations.__main__ import VERBS
from ablations.cli.flags import read_flags
from ablations.common.errors import UsageError
from ablations.config.compose import compose_config
from ablations.config.multirun import compose_jobs
from ablations.config.multiverse import without_recipes
from tests import option_tables
from tests.conftest import ROOT

LONGEST_README = 160  # lines of the first one
FOLDERS = ("ablations", "notebooks", "results", "sa_core", "tests")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)
PROSE = [path for path in DOCUMENTS if path != option_tables.FILE]  # generated from the options' help
# One spelling for each of the field's terms.
SPELLINGS = {
    "data set": r"\bdatasets?\b",
    "top-1": r"\btop1\b|\btop 1\b|\bTop1\b",
    "multiply-adds": r"\bmultiply adds\b|\bmult-adds\b|\bMAdds\b",
    "baseline": r"\bbase line\b",
    "feature map": r"\bfeaturemaps?\b",
    "NaN": r"\bnan\b|\bNAN\b",
    "per class": r"\bper-class basis\b",
    "minimum detectable effect": r"\bminimal detectable effect\b",
    "licence (the noun)": r"\blicense\b(?!\.txt)",
}
# Constructions that a reader has to translate back.
PUZZLES = (
    r"\bwhoever\b", r"\bis no (number|name|value|backbone|model)\b", r"\basks nobody\b", r"\bby itself where it can\b",
    r"\bwhat there is to\b", r"\bof these,", r"\bbecame of\b", r"\bhow far the noise\b", r"\bpromises?\b",
)  # fmt: skip


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """The text of a document without code, inline code and addresses of links."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "", text))


def blocks(path: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of a document in one of these languages."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.M | re.S):
        if language in languages:
            yield block


def shown_commands() -> Iterator[tuple[str, str]]:
    """Every command of the suite in code blocks and inline code, with the document's name."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        inline = [" ".join(code.split()) for code in re.findall(r"`(python -m ablations[^`]*)`", prose_code(text))]
        lines = [line for block in blocks(path, "sh") for line in block.replace("\\\n", " ").splitlines()]
        for line in [*inline, *lines]:
            if line.startswith("python -m ablations") and "<" not in line:
                yield name(path), line.removesuffix("&").strip()


def prose_code(text: str) -> str:
    """The text without fenced blocks, in which backquotes have another meaning."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def anchor(heading: str) -> str:
    """The anchor that GitHub generates for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("folder", [".", *FOLDERS])
def test_every_folder_has_a_readme(folder: str) -> None:
    assert (ROOT / folder / "README.md").is_file()


def test_the_first_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_and_image_has_a_target(document: Path) -> None:
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_code(document.read_text(encoding="utf-8"))):
        file, _, section = target.partition("#")
        if re.match(r"[a-z]+://", target):
            continue
        path = (document.parent / file).resolve() if file else document
        if not path.exists():
            missing.append(target)
        elif section:
            headings = re.findall(r"^#+ (.+)$", prose_code(path.read_text(encoding="utf-8")), flags=re.M)
            if section not in map(anchor, headings):
                missing.append(target)
    assert missing == []


@pytest.mark.parametrize(("document", "command"), sorted(set(shown_commands())))
def test_every_documented_command_is_valid(document: str, command: str, tmp_path: Path) -> None:
    words = shlex.split(command, comments=True)
    module, arguments = words[2], words[3:]
    verb = module.removeprefix("ablations").removeprefix(".")
    if not verb:
        assert not arguments or arguments[0] in (*VERBS, "--help", "--version")
        return
    assert verb in VERBS
    assert import_module(module).PURPOSE
    if verb == "compare":
        assert {word.partition("=")[0] for word in arguments if "=" in word} <= {"study", "storage", "results_dir"}
        return
    line = read_flags(arguments)
    folder = None
    if line.config_dir:  # the file is in the document
        files = [block for block in blocks(ROOT / document, "yaml") if "question:" in block]
        (tmp_path / "sweep").mkdir()
        sweep = next(word.partition("=")[2] for word in line.overrides if word.startswith("sweep="))
        (tmp_path / "sweep" / f"{sweep}.yaml").write_text(files[0])
        folder = str(tmp_path)
    if line.multirun:
        assert len(compose_jobs(line.overrides, folder)) > 1
    else:
        compose_config(without_recipes(line.overrides), folder)


def test_a_command_with_an_unknown_option_would_be_detected() -> None:
    with pytest.raises(UsageError):
        compose_config(["sweep=groups", "train.epoch=3"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_documented_code_is_valid_python_with_existing_imports(document: Path) -> None:
    for block in blocks(document, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                module = import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
            elif isinstance(node, ast.Import):
                assert [import_module(alias.name) for alias in node.names]


def test_the_documented_code_of_the_library_runs() -> None:
    for document in ("README.md", "sa_core/README.md"):
        context: dict[str, object] = {}
        for block in blocks(ROOT / document, "python"):
            if "timm" not in block and "resnet50" not in block:
                exec(block, context)
        assert context


def test_the_tables_of_options_match_the_declarations() -> None:
    written = option_tables.FILE.read_text(encoding="utf-8")
    assert written == option_tables.document(), "python -m tests.option_tables writes them again"


@pytest.mark.parametrize("document", PROSE, ids=name)
def test_terms_have_one_spelling(document: Path) -> None:
    text = prose(document)
    found = {term: re.findall(pattern, text) for term, pattern in SPELLINGS.items() if re.search(pattern, text)}
    assert found == {}


@pytest.mark.parametrize("document", PROSE, ids=name)
def test_no_sentence_has_a_construction_that_must_be_read_twice(document: Path) -> None:
    text = prose(document)
    assert [found.group() for pattern in PUZZLES if (found := re.search(pattern, text, flags=re.I))] == []


def test_the_citation_matches_the_package() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{cited["version"]}"' in declared
    assert cited["license"] == "MIT"
    assert any("Shuffle Attention" in work["title"] for work in cited["references"])


def test_the_changelog_has_the_format_of_the_store() -> None:
    from ablations.storage.study import FORMAT

    assert f"Store format {FORMAT}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
