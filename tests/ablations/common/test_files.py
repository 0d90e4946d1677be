from __future__ import annotations

import ast
import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ablations
from ablations.common.errors import UsageError
from ablations.common.files import discard_partials, refusals_explained, write_whole
from tests.disks import NEEDS_FULL_DISK, fill_disk_for, largest_file, leave_partial
from tests.wording import worded

# Writes the same file repeatedly, each time with another size and a single byte value.
REWRITE = """
import sys
from pathlib import Path
from ablations.common.files import write_whole
for turn in range(1000):
    write_whole(Path(sys.argv[1]), bytes([turn % 256]) * (1 + turn * 997 % 50_000))
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@given(st.binary() | st.text(st.characters(codec="utf-8")))
def test_written_content_is_read_back(tmp_path_factory: pytest.TempPathFactory, content: bytes | str) -> None:
    path = tmp_path_factory.mktemp("whole") / "new" / "file.md"
    write_whole(path, b"old")
    write_whole(path, content)
    assert path.read_bytes() == (content.encode("utf-8") if isinstance(content, str) else content)
    assert names(path.parent) == ["file.md"]


def test_text_is_utf_8_under_any_locale(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ablations.common.files import write_whole;"
        r"write_whole(Path(sys.argv[1]), '\u00d7 \u2013\n')"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "x"], check=True, env=ENVIRONMENT | plain)
    assert (tmp_path / "x").read_bytes() == "× –\n".encode()


def test_a_reader_never_sees_a_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    sizes = {turn % 256: set[int]() for turn in range(256)}
    for turn in range(1000):
        sizes[turn % 256].add(1 + turn * 997 % 50_000)
    versions = set()
    with subprocess.Popen([sys.executable, "-c", REWRITE, path], env=ENVIRONMENT) as process:
        while process.poll() is None:
            content = path.read_bytes()
            if content:
                assert len(set(content)) == 1
                assert len(content) in sizes[content[0]]
                versions.add((content[0], len(content)))
    assert process.returncode == 0
    assert len(versions) > 10  # reading and writing overlapped
    assert names(tmp_path) == ["file"]


def test_concurrent_writers_of_a_file_do_not_interfere(tmp_path: Path) -> None:
    path, failed = tmp_path / "file", []

    def write(letter: bytes) -> None:
        try:
            for _ in range(200):
                write_whole(path, letter * 10_000)
        except OSError as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failed == []
    assert path.read_bytes() in (b"a" * 10_000, b"b" * 10_000, b"c" * 10_000)
    assert names(tmp_path) == ["file"]


def test_a_killed_writer_leaves_the_old_file_and_a_partial_file_that_is_discarded(tmp_path: Path) -> None:
    path, other = tmp_path / "file[1].pt", tmp_path / "file1.pt"
    write_whole(path, "old")
    leave_partial(path)
    leave_partial(other)
    assert path.read_text(encoding="utf-8") == "old"
    assert len(names(tmp_path)) == 3
    discard_partials(path)
    assert path.read_text(encoding="utf-8") == "old"
    assert [name.startswith(".file1.pt.") for name in names(tmp_path)] == [True, False]
    discard_partials(tmp_path / "none" / "file")  # a missing folder is not an error


@NEEDS_FULL_DISK
def test_a_full_disk_leaves_only_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")
    fill_disk_for(path, monkeypatch)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, "new")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert (path.read_text(encoding="utf-8"), names(tmp_path)) == ("old", ["file"])


def test_a_failed_write_leaves_only_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    with largest_file(50_000), pytest.raises(OSError, match="File too large") as caught:
        write_whole(path, bytes(100_000))
    assert caught.value.filename == str(path)
    assert (path.read_bytes(), names(tmp_path)) == (b"old", ["file"])


def test_an_interrupted_writer_leaves_only_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def interrupt(partial: Path, _: bytes) -> None:
        partial.touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, b"new")
    assert (path.read_bytes(), names(tmp_path)) == (b"old", ["file"])


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_the_default_ones(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "whole", "x")
        (tmp_path / "plain").write_text("x", encoding="utf-8")
    finally:
        os.umask(before)
    whole, plain = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("whole", "plain"))
    assert whole == plain == 0o666 & ~umask


def test_the_error_for_a_folder_at_the_path_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_whole(tmp_path / "file", "x")
    assert (caught.value.filename, names(tmp_path)) == (str(tmp_path / "file"), ["file"])


@pytest.mark.parametrize(
    ("error", "names_file", "place", "cause"),
    [
        (OSError(30, "Read-only file system"), True, "here", "Read-only file system"),
        (OSError(13, "Permission denied", "file"), True, "file", "Permission denied"),
        (OSError(13, "Permission denied", "file"), False, "here", "Permission denied"),
        (OSError("odd"), False, "here", "odd"),
    ],
)
def test_a_failure_to_write_is_one_message(error: OSError, names_file: bool, place: str, cause: str) -> None:
    with (
        pytest.raises(UsageError) as caught,
        refusals_explained("results_dir", Path("here"), "; so", names_file=names_file),
    ):
        raise error
    assert (caught.value.option, str(caught.value.value)) == ("results_dir", place)
    assert caught.value.reason == worded("files.unwritable", cause=cause) + "; so"


def test_other_errors_are_not_about_writing() -> None:
    with pytest.raises(ValueError, match=r"^no$"), refusals_explained("results_dir", "here"):
        raise ValueError("no")


# Exceptions: atomic writing itself, and the image cache, which renames a complete folder.
IN_PLACE = {"common/files.py", "data/cache.py"}


def test_no_other_code_writes_files_in_place_or_in_the_encoding_of_the_locale() -> None:
    root = Path(ablations.__path__[0])
    modules = set()
    for path in root.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                name, module = call.func.attr, path.relative_to(root).as_posix()
                if name in ("write_text", "write_bytes") or (name in ("to_csv", "to_json", "to_parquet") and call.args):
                    modules.add(module)
                if name == "read_text" and not any(keyword.arg == "encoding" for keyword in call.keywords):
                    modules.add(module)
    assert modules <= IN_PLACE
