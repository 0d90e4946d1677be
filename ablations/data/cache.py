"""A cache of decoded images on disk, memory-mapped: every source is decoded once for all runs.

An entry is a folder of raw bytes: `train.u8` and `test.u8`, (N, 3, side, side) each, their labels, and `meta.json`.
The process that holds its lock writes it under a temporary name and renames it when it is complete. The lock of a
killed process is released by the system, and its partial entry is discarded. Entries may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ablations.common.console import print_text
from ablations.common.files import refusals_explained, user_path
from ablations.common.sizes import MIB
from ablations.data.images import Images, ImageSet, fingerprint_of
from ablations.data.source import Contents, DataError, Part, Piece, Source, ahead, reading

_VERSION = 2
_PARTS = ("train", "test")
_NAMED = 5  # damaged images listed in a message
_SPARE = 64 * MIB  # bytes to leave free on the disk


@dataclass(frozen=True)
class Entry:
    """The decoded images, and the names of damaged ones with the reasons."""

    images: Images
    damaged: tuple[str, ...]

    def say_damaged(self) -> str:
        """Returns a sentence with the number of damaged images and the first of them."""
        total = len(self.images.train) + len(self.images.test) + len(self.damaged)
        first = "; ".join(self.damaged[:_NAMED]) + ("; ..." if len(self.damaged) > _NAMED else "")
        return f"{len(self.damaged):,} of {total:,} images cannot be decoded: {first}"


def default_folder() -> Path:
    """Returns the default folder of the cache: the user's cache folder (XDG Base Directory 0.8).

    Raises:
        UsageError: if the home folder is unknown.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else user_path("data.cache", "~/.cache")) / "ablations"


def decoded(source: Source, folder: Path, console: Console) -> Entry:
    """Returns the images of a source from the cache in `folder`, decoding them if they are not there yet.

    Raises:
        DataError: if the folder cannot be written, the disk is too small, or no image can be decoded.
    """
    with reading():
        identity = json.dumps([_VERSION, source.identity], sort_keys=True)
    entry = folder / f"{source.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    images = _read(entry)
    if images is not None:
        return images
    with refusals_explained("data.cache", folder, "; data.cache=FOLDER sets another folder", error=DataError):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(entry, console):
            images = _read(entry)  # the previous holder of the lock may have written it
            if images is None:
                with reading():
                    contents = source.contents()
                _write(contents, entry, source.name, console)
                images = _read(entry)
    assert images is not None
    return images


def _locked(entry: Path, console: Console) -> AbstractContextManager[object]:
    lock = FileLock(f"{entry}.lock", mode=0o666)  # other users of the folder can acquire it, too
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print_text(console, "Another process is decoding these images; waiting for it.")
        return lock.acquire()


def _read(entry: Path) -> Entry | None:
    """Memory-maps an entry; returns None if it does not exist or is incomplete."""
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        # Copy-on-write: changes by a program do not reach the file.
        train, test = (_mapped(entry / part, meta["shapes"][part][-1], "c") for part in _PARTS)
        if _shapes(train, test) != meta["shapes"]:
            return None
        return Entry(Images(train, test, tuple(meta["classes"]), meta["fingerprint"]), tuple(meta["damaged"]))
    except (OSError, ValueError, LookupError, TypeError, EOFError):
        return None


def _mapped(path: Path, side: int, mode: Literal["c", "r"]) -> ImageSet:
    """Memory-maps a part; raises ValueError if the numbers of images and labels differ."""
    labels, file = np.load(path.with_name(f"{path.name}-labels.npy")), path.with_suffix(".u8")
    # An empty file cannot be mapped.
    pixels = np.memmap(file, np.uint8, mode) if file.stat().st_size else np.empty(0, dtype=np.uint8)
    return ImageSet(pixels.reshape(len(labels), 3, side, side), labels)


def _shapes(train: ImageSet, test: ImageSet) -> dict[str, list[int]]:
    return {"train": list(train.pixels.shape), "test": list(test.pixels.shape)}


def _write(contents: Contents, entry: Path, name: str, console: Console) -> None:
    partial = entry.with_name(f"{entry.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(entry, ignore_errors=True)
    _check_disk(contents, entry.parent)
    partial.mkdir()
    try:
        with _progress(console, f"decoding {name}", len(contents.train.labels) + len(contents.test.labels)) as advance:
            damaged = _write_part(contents.train, contents, partial / "train", advance)
            damaged += _write_part(contents.test, contents, partial / "test", advance)
        train, test = (_mapped(partial / part, contents.side, "r") for part in _PARTS)
        if not (len(train) and len(test)):
            raise DataError("data", name, f"no image can be decoded, for example {damaged[0]}")
        meta = {
            "shapes": _shapes(train, test),
            "classes": list(contents.classes),
            "fingerprint": fingerprint_of((train, test), contents.classes),
            "damaged": damaged,
        }
        (partial / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        partial.rename(entry)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _check_disk(contents: Contents, folder: Path) -> None:
    needed = (len(contents.train.labels) + len(contents.test.labels)) * 3 * contents.side**2
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        reason = (
            f"needs {needed / MIB:,.1f} MiB for decoded images, but only {free / MIB:,.1f} MiB are free; use another "
            "folder (data.cache=...), fewer images (data.train_per_class=...) or a lower data.resolution"
        )
        raise DataError("data.cache", folder, reason)


def _write_part(part: Part, contents: Contents, path: Path, advance: Any) -> list[str]:
    """Decodes a part into a file; returns the damaged images."""
    row = 3 * contents.side**2
    failures: dict[int, str] = {}
    with path.with_suffix(".u8").open("w+b") as file:

        def decode(piece: Piece) -> dict[int, str]:
            pixels, failed = piece.decode()
            # Written, not memory-mapped: mapped pages would count as memory of this process.
            _put(file.fileno(), np.ascontiguousarray(pixels).data.cast("B"), piece.start * row)
            advance(piece.count)
            return {piece.start + index: reason for index, reason in failed.items()}

        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        pieces = ahead(decode, part.pieces, threads, 2 * threads) if contents.takes_time else map(decode, part.pieces)
        for failed in pieces:
            failures |= failed
        kept = np.ones(len(part.labels), dtype=bool)
        kept[list(failures)] = False
        if failures:
            _close_gaps(file.fileno(), kept, row)
        os.fsync(file.fileno())
    np.save(path.with_name(f"{path.name}-labels.npy"), part.labels[kept])
    return [failures[index] for index in sorted(failures)]


def _put(file: int, content: memoryview, offset: int) -> None:
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written


def _close_gaps(file: int, kept: NDArray[np.bool_], row: int) -> None:
    for target, source in enumerate(np.flatnonzero(kept).tolist()):
        if target != source:
            _put(file, memoryview(os.pread(file, row, source * row)), target * row)
    os.ftruncate(file, int(kept.sum()) * row)


@contextmanager
def _progress(console: Console, title: str, total: int) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:
        if not console.is_interactive:
            print_text(console, f"{title[0].upper()}{title[1:]}: {total:,} images (cached for later runs).")
        task = progress.add_task(title, total=total)
        yield lambda count: progress.update(task, advance=count)
