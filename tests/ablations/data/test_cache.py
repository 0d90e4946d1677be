from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from threading import Lock
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from ablations.config.compose import compose_config
from ablations.data import load_images
from ablations.data.cache import Entry, decoded, default_folder
from ablations.data.image_tree import ImageTreeSource
from ablations.data.source import DataError
from tests.builders.trees import make_tree
from tests.wording import refusal, worded

QUIET = Console(quiet=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree", train=40, val=3)


def source(tree: Path, *options: str) -> ImageTreeSource:
    config = compose_config(["data=imagenet_subset", f"data.root={tree}", *options]).data
    return ImageTreeSource(config)  # type: ignore[arg-type]


def load(tree: Path, *options: str) -> Entry:
    return decoded(source(tree, *options), tree.parent / "cache", QUIET)


def entries(tree: Path) -> list[str]:
    return sorted(path.name for path in (tree.parent / "cache").iterdir() if path.suffix != ".lock")


def test_images_are_decoded_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(tree).images
    monkeypatch.setattr(ImageTreeSource, "contents", lambda _: pytest.fail("decoded again"))
    second = load(tree).images
    assert first.fingerprint == second.fingerprint
    assert np.array_equal(first.train.pixels, second.train.pixels)
    assert np.array_equal(first.train.labels, second.train.labels)


@pytest.mark.parametrize("change", ["touched", "another", "subset", "resolution"])
def test_files_and_options_that_affect_the_images_create_a_new_entry(tree: Path, change: str) -> None:
    load(tree)
    path = tree / "train" / "n01" / "0.jpg"
    if change == "touched":
        os.utime(path, (1, 1))
    elif change == "another":
        shutil.copy(path, tree / "train" / "n01" / "more.jpg")
    load(tree, *{"subset": ["data.train_per_class=7"], "resolution": ["data.resolution=70"]}.get(change, []))
    assert len(entries(tree)) == 2


def test_changes_to_images_in_memory_do_not_reach_the_file(tree: Path) -> None:
    before = load(tree).images
    before.train.pixels[:] = 7
    assert (load(tree).images.train.pixels != 7).any()


@pytest.mark.parametrize("part", ["train.u8", "meta.json", "test-labels.npy"])
def test_an_entry_with_a_damaged_file_is_rebuilt(tree: Path, part: str) -> None:
    fingerprint = load(tree).images.fingerprint
    path = tree.parent / "cache" / entries(tree)[0] / part
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"", b"null", b"[]"):
        path.write_bytes(damaged)
        again = load(tree).images
        assert again.fingerprint == fingerprint
        assert len(again.train) == 120
        assert path.read_bytes() == whole


# Starts to decode, and continues after a line on standard input.
PROGRAM = """
    import os, sys, threading
    from functools import cache
    from pathlib import Path
    from PIL import Image
    from rich.console import Console
    from ablations.config.compose import compose_config
    from ablations.data.cache import decoded
    from ablations.data.image_tree import ImageTreeSource

    tree = Path(sys.argv[1])
    original = Image.open
    typed, one_thread = cache(sys.stdin.readline), threading.Lock()

    def waiting(path):
        os.write(1, b"decoding\\n")  # a single write, not interleaved with other threads
        with one_thread:
            typed()
        return original(path)

    Image.open = waiting
    source = ImageTreeSource(compose_config(["data=imagenet_subset", f"data.root={tree}"]).data)
    images = decoded(source, tree.parent / "cache", Console(file=sys.stderr)).images
    print("fingerprint", images.fingerprint, flush=True)
"""


def start(tree: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tree)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tree,
        # Shells start background jobs with SIGINT ignored, and the tests may run in one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def start_decoding(tree: Path) -> subprocess.Popen[str]:
    """Starts a run, and returns when it has started to decode."""
    run = start(tree)
    assert run.stdout is not None
    assert run.stdout.readline() == "decoding\n"
    return run


def test_concurrent_runs_decode_images_once(tree: Path) -> None:
    first = start_decoding(tree)
    second = start(tree)
    assert second.stderr is not None
    assert second.stderr.readline() == worded("cache.waiting") + "\n"
    assert first.stdin is not None
    first.stdin.write("\n")
    first.stdin.close()
    # Not with `communicate`, which loses lines that readline() has buffered.
    printed = [run.stdout.read().splitlines() for run in (first, second) if run.stdout is not None]
    assert [run.wait(300) for run in (first, second)] == [0, 0]
    assert [lines.count("decoding") for lines in printed] == [128, 0]  # one line was read in start_decoding
    assert printed[0][-1] == printed[1][-1]


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_after_a_killed_run_the_next_one_decodes_from_the_start(tree: Path, kind: signal.Signals) -> None:
    run = start_decoding(tree)
    assert any(name.endswith(".partial") for name in entries(tree))
    run.send_signal(kind)
    run.communicate("\n", timeout=300)
    remaining = entries(tree)
    assert not remaining if kind == signal.SIGINT else [name.endswith(".partial") for name in remaining] == [True]
    assert len(load(tree).images.train) == 120
    assert not any(name.endswith(".partial") for name in entries(tree))


def test_insufficient_disk_space_is_an_error_before_anything_is_written(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    with pytest.raises(DataError, match="^data.cache=.*: " + worded("cache.too_small", needed="2.0", free="1.0")):
        load(tree)
    assert entries(tree) == []


def test_a_folder_that_cannot_be_written_is_one_message(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError,
        match=refusal(f"data.cache={tmp_path / 'file' / 'cache'}", "files.unwritable", cause="Not a directory"),
    ):
        decoded(source(tree), tmp_path / "file" / "cache", QUIET)


def test_a_full_disk_while_writing_is_one_message_and_leaves_no_files(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, pwrite, turn = [100_000], os.pwrite, Lock()

    def write(file: int, content: bytes, place: int) -> int:
        with turn:  # several threads write
            if not room[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = pwrite(file, content[: room[0]], place)
            room[0] -= written
            return written

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(DataError, match=f"^data.cache=.*{worded('files.unwritable', cause='No space left on device')}"):
        load(tree)
    assert entries(tree) == []


def test_the_default_folder_is_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "ablations"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "ablations"


def test_a_configuration_without_a_loader_is_a_type_error() -> None:
    from ablations.config import DataConfig

    with pytest.raises(TypeError, match="no loader for DataConfig"):
        load_images(DataConfig(name="nothing"))
