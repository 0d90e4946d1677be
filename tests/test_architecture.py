"""The architecture: direction of imports, cycles, slow imports, length of functions, private names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import pytest

from tests.conftest import ROOT

# A package imports only earlier packages in this list; verbs import any of them, and nothing imports a verb.
ORDER = (
    "common", "config", "design", "data", "measure", "training", "storage", "stats", "analysis", "reporting",
    "export",  # after reporting, whose sentences are in model cards
    "tracking", "execution", "benchmarking", "ledger", "cli",
)  # fmt: skip
VERBS = ("run", "plan", "analyze", "compare", "bench", "claims")
FACE = ("__init__", "__main__")  # of ablations: the public names, and the list of verbs
LONGEST = 60  # lines of a function
MAY_BE_LONG = ("ablations.training.train.train", "sa_core.fused.")  # the training loop, and kernels
OURS = {"ablations", "sa_core"}
PUBLIC_ONLY = {"optuna", "mlflow", "hydra", "ray", "pytest"}
# Slow imports that the files of some packages may load.
SLOW = {"torch", "optuna", "mlflow", "matplotlib", "ray"}
LOADS: dict[str, set[str]] = {
    "common config design stats cli run plan analyze compare bench claims __main__": set(),
    "data measure training": {"torch"},
    "storage": {"optuna"},
    "analysis ledger": {"torch", "optuna"},
    "reporting export benchmarking": {"torch", "optuna", "matplotlib"},
    "tracking": {"optuna", "mlflow"},
    "execution": {"optuna", "ray"},
}


@cache
def trees() -> dict[str, ast.Module]:
    """The syntax trees of the product's files by module name."""
    files = sorted(path for package in ("ablations", "sa_core") for path in (ROOT / package).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    return {name: ast.parse(path.read_text()) for name, path in zip(names, files, strict=True)}


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Yields the full names of a file's imports, including those in functions, but not those for type checking."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from (name for other in node.orelse for name in imports_of(other))
        else:
            yield from imports_of(node)


def edges() -> dict[str, set[str]]:
    """The imports between the product's modules."""
    modules = trees()
    found: dict[str, set[str]] = {}
    for module, tree in modules.items():
        names = [name if name in modules else name.rpartition(".")[0] for name in imports_of(tree)]
        found[module] = {name for name in names if name in modules}
    return found


def floor(module: str) -> int:
    """The level of a module: sa_core is lowest, then the packages of ablations, the verbs, the public names."""
    top, *rest = module.split(".")
    if top == "sa_core":
        return -1
    if not rest or rest[0] in FACE:
        return len(ORDER) + 1
    return ORDER.index(rest[0]) if rest[0] in ORDER else len(ORDER)


def test_a_package_imports_only_earlier_packages() -> None:
    wrong = set()
    for module, imported in edges().items():
        for name in imported:
            is_above = floor(name) > floor(module)
            is_verb = floor(name) == floor(module) == len(ORDER) and name != module
            wrong |= {f"{module} imports {name}"} if is_above or is_verb else set()
    assert sorted(wrong) == []


def test_there_are_no_import_cycles() -> None:
    graph = edges()

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = graph[waiting.pop()] - seen
            seen |= new
            waiting.extend(new)
        return seen

    assert [module for module in graph if module in reached(module)] == []


def test_the_folder_of_the_suite_has_only_packages_and_verbs() -> None:
    allowed = {f"{name}.py" for name in (*VERBS, *FACE)} | {
        "py.typed",
        "README.md",
        "OPTIONS.md",
        "__pycache__",
        *ORDER,
    }
    assert sorted({path.name for path in (ROOT / "ablations").iterdir()} - allowed) == []


def test_only_public_names_of_libraries_are_imported() -> None:
    tests = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in (ROOT / "tests").rglob("*.py")}
    private = {
        f"{file} imports {name}"
        for file, tree in {**trees(), **tests}.items()
        for name in imports_of(tree)
        if name.split(".")[0] in PUBLIC_ONLY and any(part.startswith("_") for part in name.split("."))
    }
    assert sorted(private) == []


def test_no_function_is_too_long() -> None:
    long = {
        f"{module}.{node.name}"
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= LONGEST
        if not f"{module}.{node.name}".startswith(MAY_BE_LONG)
    }
    assert sorted(long) == []


@pytest.mark.parametrize("packages", LOADS)
def test_packages_import_no_slow_modules_that_they_do_not_need(packages: str) -> None:
    names = [f"ablations.{name}" for name in packages.split() if f"ablations.{name}" in trees()]
    modules = [module for module in trees() if any(f"{module}.".startswith(f"{name}.") for name in names)]
    code = f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(SLOW & set(done.stdout.split()) - LOADS[packages]) == []


def test_tests_share_builders_and_do_not_import_each_other() -> None:
    shared = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / "tests").rglob("*.py")
        for name in imports_of(ast.parse(path.read_text()))
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    }
    assert sorted(shared) == []  # shared helpers are in tests/builders


def private_names_used(tree: ast.AST) -> Iterator[str]:
    """Yields the product's private names that a test imports, reads or replaces."""
    names = [name for name in imports_of(tree) if name.split(".")[0] in OURS]
    yield from (name for name in names if is_private(name))
    ours = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if (node.module or "" if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0] in OURS
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node).split(".")[0] in ours and is_private(node.attr):
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(name := node.args[1], ast.Constant):
            owner = ast.unparse(node.args[0])  # of getattr, setattr and delattr
            if owner.split(".")[0] in ours and isinstance(name.value, str) and is_private(name.value):
                yield f"{owner}.{name.value}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.split(".")[0] in OURS:
            yield from [node.value] if re.fullmatch(r"[\w.]+", node.value) and is_private(node.value) else []


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def test_tests_use_only_public_names_of_the_product() -> None:
    used = {
        f"{path.relative_to(ROOT)} uses {name}"
        for path in (ROOT / "tests").rglob("*.py")
        for name in private_names_used(ast.parse(path.read_text()))
    }
    assert sorted(used) == []


@pytest.mark.parametrize(
    "line",
    [
        "from ablations.cli import _x",
        "from sa_core._x import y",
        "import ablations.cli as c\nc._x()",
        "import ablations.cli\nablations.cli._x = 1",
        "from ablations import cli as c\nm.setattr(c, '_x', 1)",
        "from ablations.cli import Thing\nm.setattr(Thing, '_x', 1)",
        "def f():\n from ablations.cli import Thing\n return getattr(Thing.part, '_x')",
        "m.setattr('ablations.cli._x', 1)",
    ],
)
def test_every_use_of_a_private_name_is_detected(line: str) -> None:
    public = line.replace("_x", "x").replace("'x'", "'__x__'")
    assert [len(list(private_names_used(ast.parse(text)))) for text in (line, public)] == [1, 0]
