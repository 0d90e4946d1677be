"""The distribution: declared dependencies, contents, use with torch alone, and the installed wheel."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator, Sequence
from email import message_from_bytes
from email.message import Message
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

from ablations.__main__ import VERBS
from tests.conftest import ROOT, TINY
from tests.wording import worded

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
OURS = {"ablations", "sa_core", "tests"}
# Used without an import: SQLAlchemy and Optuna import drivers by the names in URLs, pytest its plug-ins, torch.onnx and
# torch.utils.tensorboard their packages, pandas the Parquet writer, mypy its stubs, and notebooks the kernel; the rest
# are commands.
UNIMPORTED = {
    "psycopg2-binary", "pyarrow", "tensorboard", "onnx", "onnxscript", "pytest-xdist", "ipykernel", "ruff", "mypy",
    "build", "pre-commit", "setuptools", "pandas-stubs", "scipy-stubs", "types-psutil", "types-pyyaml",
}  # fmt: skip
WITH_TORCH = {"triton"}  # a dependency of torch for GPUs, optional for sa_core
# Files of the packages that an installation does not have: sources of compiled files, and text about the sources.
UNINSTALLED = {".cpp", ".h", ".md", ".pyc", ".so"}
UNCOPIED = {".git", ".venv", ".hypothesis", "results", "build", "dist", "data", "mlruns"}


def normalised(name: str) -> str:
    """The normalized name of a distribution (PEP 503), without version, extras and markers."""
    found = re.match(r"[\w.-]+", name)
    assert found
    return re.sub(r"[-_.]+", "-", found.group()).lower()


def declared(*extras: str) -> set[str]:
    """The dependencies of the base installation and these extras, including nested extras."""
    names = {normalised(text) for text in PROJECT["dependencies"]}
    for extra in extras:
        for text in EXTRAS[extra]:
            within = re.match(rf"{PROJECT['name']}\[(.*)\]$", text)
            names |= declared(*within.group(1).split(",")) if within else {normalised(text)}
    return names


def imported(*folders: str) -> set[str]:
    """The distributions that the files in these folders import, including imports in functions."""
    owners, known = packages_distributions(), declared("dev")
    found = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            packages = {name.partition(".")[0] for name in names} - OURS - sys.stdlib_module_names
            for package in packages:
                names = [normalised(owner) for owner in owners[package]]  # a package may be in several distributions
                found.add(next((name for name in names if name in known), names[0]))
    return found


def test_imported_and_declared_packages_are_the_same() -> None:
    product, everything = imported("ablations", "sa_core"), imported("ablations", "sa_core", "tests")
    optional = {extra for extra in EXTRAS if extra != "dev"}
    assert sorted(product - declared(*optional) - WITH_TORCH) == []
    assert sorted(everything - declared("dev") - WITH_TORCH) == []
    assert sorted(declared(*optional) - product - UNIMPORTED) == []
    assert sorted(declared("dev") - everything - UNIMPORTED) == []


def test_the_library_depends_only_on_torch() -> None:
    assert declared() == {"torch"}
    assert sorted(imported("sa_core") - declared("suite") - WITH_TORCH) == []


def needed_by(name: str) -> set[str]:
    """A distribution with all its dependencies."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = normalised(waiting.pop())
        if current not in found:
            found.add(current)
            try:
                waiting += [text for text in requires(current) or [] if "extra ==" not in text]
            except PackageNotFoundError:  # of another platform
                continue
    return found


def alone(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with only torch and its dependencies installed."""
    kept = needed_by("torch")
    hidden = {
        package
        for package, owners in packages_distributions().items()
        if package not in OURS and not any(normalised(owner) in kept for owner in owners)
    }
    block = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""
    assert {"numpy", "torchvision", "timm", "omegaconf", "mlflow"} <= hidden
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", block + code, *arguments],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=120,
    )  # fmt: skip


def test_the_library_works_with_torch_alone() -> None:
    done = alone(
        "import torch, sa_core\n"
        "x = torch.ones(2, 16, 4, 4)\n"
        "assert sa_core.ShuffleAttention(16, groups=4)(x).shape == x.shape\n"
        "network = sa_core.create_model('resnet20', attention='sa', groups=4)\n"
        "network(torch.ones(2, 3, 32, 32)).sum().backward()\n"
        "assert all(getattr(sa_core, name) is not None for name in sa_core.__all__)\n"
        "for name, knobs in (('resnet50', {}), ('timm/resnet26', {}), ('resnet8', {'attention': 'se'})):\n"
        "    try:\n"
        "        sa_core.create_model(name, **knobs)\n"
        "    except ImportError as error:\n"
        "        print(error)"
    )
    assert done.returncode == 0, done.stderr
    wanted = {"resnet50": "torchvision", "timm/resnet26": "timm", "attention=se": "timm"}
    assert done.stdout.splitlines() == [
        worded("packages.missing", what=what, package=package) for what, package in wanted.items()
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_with_torch_alone_a_verb_explains_what_to_install(verb: str) -> None:
    code = f"import runpy; sys.argv[0] = 'x'; runpy.run_module('ablations.{verb}', run_name='__main__', alter_sys=True)"
    done = alone(code, "sweep=groups")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert worded("cli.not_installed", extra="shuffle-attention-ablations[suite]") in done.stderr


# Built distributions.


def build(what: str, source: Path) -> Path:
    """Builds the sdist or the wheel of a folder in this environment."""
    command = [sys.executable, "-m", "build", f"--{what}", "--no-isolation", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = (source / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def unwanted(folder: str, names: list[str]) -> set[str]:
        made = {name for name in names if name == "__pycache__" or name.endswith((".egg-info", "_cache"))}
        return made | (UNCOPIED if Path(folder) == ROOT else set())

    source = tmp_path_factory.mktemp("source") / "project"
    shutil.copytree(ROOT, source, ignore=unwanted)
    return build("sdist", source)


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the sdist, with the compiled libraries of this installation instead of new ones."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    ready = source / "build" / f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}" / "sa_core" / "fused"
    ready.mkdir(parents=True)
    for library in (ROOT / "sa_core" / "fused").glob("*.so"):
        shutil.copy(library, ready)
    return build("wheel", source)


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only environment with the wheel and this environment's packages."""
    folder = tmp_path_factory.mktemp("installation") / "venv"
    venv.create(folder, symlinks=True)
    command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    # Without PYTHONPATH, in which pip would find the editable installation and skip the wheel.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    wanted = ["--no-deps", "--no-index", "--ignore-installed", str(wheel)]
    subprocess.run([*command, *wanted], check=True, capture_output=True, timeout=200, env=environment)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Python reads no .pth files in a folder added this way, so an editable installation in it has no effect.
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    return folder


def in_packages() -> Iterator[str]:
    """The files of the packages in an installation."""
    for path in (path for package in ("ablations", "sa_core") for path in (ROOT / package).rglob("*")):
        if path.is_file() and path.suffix not in UNINSTALLED:
            yield str(path.relative_to(ROOT))


def test_the_source_distribution_has_tests_build_files_and_documents(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.*") if path.suffix in (".py", ".toml")}
    kernels = {str(path.relative_to(ROOT)) for path in (ROOT / "sa_core" / "fused" / "kernels").iterdir()}
    assert sorted({*tests, *kernels, *in_packages()} - names) == []
    assert {
        "hubconf.py",
        "README.md",
        "LICENSE",
        "NOTICE",
        "Makefile",
        "pyproject.toml",
        "notebooks/01_quickstart.ipynb",
    } <= names
    assert sorted(name for name in names if name.endswith((".so", ".pyc")) or name.startswith("results")) == []


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


def test_the_wheel_has_exactly_the_files_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (licences,) = {name.partition("/")[0] for name in archive.namelist() if name.endswith("licenses/LICENSE")}
        assert f"{licences}/licenses/NOTICE" in archive.namelist()
    built = {str(path.relative_to(ROOT)) for path in (ROOT / "sa_core" / "fused").glob("*.so")}
    assert sorted(names ^ {*in_packages(), *built}) == []


def test_the_wheel_has_authors_and_dependencies(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert "maintainers" in metadata["Author"]
    assert len(metadata["Keywords"].split(",")) > 3
    assert len(metadata.get_all("Classifier", [])) > 5
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_all("Project-URL") is metadata["Home-page"] is None  # there is no public address
    always = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert [normalised(text) for text in always] == ["torch"]


def unprivileged() -> Sequence[str]:
    """The command prefix to run as a user without write access to read-only folders; empty if not available."""
    prefix = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
    tried = shutil.which("unshare") and subprocess.run([*prefix, "true"], check=False, capture_output=True)
    return prefix if tried and not tried.returncode else ()


def test_the_wheel_works_in_an_empty_folder_with_a_read_only_installation(installation: Path, tmp_path: Path) -> None:
    kept = ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
    environment = {name: os.environ[name] for name in kept if name in os.environ} | {"HOME": str(tmp_path)}

    def call(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*unprivileged(), str(installation / "bin" / program), *arguments],
            capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=300,
        )  # fmt: skip

    code = (
        "import ablations, os, sa_core; from sa_core.fused import cpu; folder = sa_core.__path__[0]; "
        "print(ablations.__file__, sa_core.__file__, bool(cpu.load()), os.access(folder, os.W_OK), sep='\\n')"
    )
    *files, has_kernels, is_writable = call("python", "-c", code).stdout.split()
    assert all(Path(file).is_relative_to(installation) for file in files)
    assert has_kernels == str(any((ROOT / "sa_core" / "fused").glob("*.so")))
    assert is_writable == "False" or (not unprivileged() and os.geteuid() == 0)
    assert list(tmp_path.iterdir()) == []
    done = call("ablations", "run", "sweep=groups", *TINY, "tracking.enabled=false")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "results" / "groups-digits-resnet8" / "report.md").is_file()
