"""Decoded images on disk, mapped into memory: every source is decoded once, however many runs use it.

An entry is a folder of raw bytes: `train.u8` and `test.u8`, (N, 3, side, side) each, their labels, and `meta.json`.
It is written under another name and renamed when it is whole, by whoever holds its lock; the lock of a process that
died is free, and what it had written is thrown away. An entry may be deleted at any time.
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
from ablations.data.source import DataError, Part, Piece, Plan, Source, ahead, reading

_VERSION = 2
_PARTS = ("train", "test")
_NAMED = 5  # damaged images that a message names
_SPARE = 64 * MIB  # bytes that are left free on a disk


@dataclass(frozen=True)
class Entry:
    """What was decoded, and the images that could not be: their names with the reasons."""

    images: Images
    damaged: tuple[str, ...]

    def say_damaged(self) -> str:
        """Says how many images could not be decoded, of how many, and names the first of them."""
        total = len(self.images.train) + len(self.images.test) + len(self.damaged)
        some = "; ".join(self.damaged[:_NAMED]) + ("; ..." if len(self.damaged) > _NAMED else "")
        return f"{len(self.damaged):,} of {total:,} images cannot be decoded: {some}"


def default_folder() -> Path:
    """Returns where decoded images are kept by default: in the user's folder for caches (XDG Base Directory 0.8).

    Raises:
        UsageError: if there is no home folder.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else user_path("data.cache", "~/.cache")) / "ablations"


def decoded(source: Source, folder: Path, console: Console) -> Entry:
    """Returns the images of a source from the folder of all entries, decoding them if nobody has yet.

    Raises:
        DataError: if the folder cannot be written, the disk is too small, or no image can be decoded.
    """
    with reading():
        identity = json.dumps([_VERSION, source.identity], sort_keys=True)
    entry = folder / f"{source.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    found = _read(entry)
    if found is not None:
        return found
    with refusals_explained("data.cache", folder, "; data.cache=FOLDER sets another folder", error=DataError):
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(entry, console):
            found = _read(entry)  # whoever held the lock may have made it
            if found is None:
                with reading():
                    plan = source.plan()
                _write(plan, entry, source.name, console)
                found = _read(entry)
    assert found is not None
    return found


def _only_one(entry: Path, console: Console) -> AbstractContextManager[object]:
    lock = FileLock(f"{entry}.lock", mode=0o666)  # which another user of the folder can take, too
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print_text(console, "Another process is decoding these images; waiting for it.")
        return lock.acquire()


def _read(entry: Path) -> Entry | None:
    """Maps an entry; None where there is none, or not a whole one."""
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        # Copy-on-write: nothing that a program does to its images reaches the file.
        train, test = (_mapped(entry / part, meta["shapes"][part][-1], "c") for part in _PARTS)
        if _shapes(train, test) != meta["shapes"]:
            return None
        return Entry(Images(train, test, tuple(meta["classes"]), meta["fingerprint"]), tuple(meta["damaged"]))
    except (OSError, ValueError, LookupError, TypeError, EOFError):
        return None


def _mapped(path: Path, side: int, mode: Literal["c", "r"]) -> ImageSet:
    """Maps a part; ValueError where a file has another length than the other one asks for."""
    labels, file = np.load(path.with_name(f"{path.name}-labels.npy")), path.with_suffix(".u8")
    # An empty file cannot be mapped.
    pixels = np.memmap(file, np.uint8, mode) if file.stat().st_size else np.empty(0, dtype=np.uint8)
    return ImageSet(pixels.reshape(len(labels), 3, side, side), labels)


def _shapes(train: ImageSet, test: ImageSet) -> dict[str, list[int]]:
    return {"train": list(train.pixels.shape), "test": list(test.pixels.shape)}


def _write(plan: Plan, entry: Path, name: str, console: Console) -> None:
    partial = entry.with_name(f"{entry.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(entry, ignore_errors=True)
    _check_disk(plan, entry.parent)
    partial.mkdir()
    try:
        with _progress(console, f"decoding {name}", len(plan.train.labels) + len(plan.test.labels)) as advance:
            damaged = _write_part(plan.train, plan, partial / "train", advance)
            damaged += _write_part(plan.test, plan, partial / "test", advance)
        train, test = (_mapped(partial / part, plan.side, "r") for part in _PARTS)
        if not (len(train) and len(test)):
            raise DataError("data", name, f"no image can be decoded, for example {damaged[0]}")
        meta = {
            "shapes": _shapes(train, test),
            "classes": list(plan.classes),
            "fingerprint": fingerprint_of((train, test), plan.classes),
            "damaged": damaged,
        }
        (partial / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        partial.rename(entry)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _check_disk(plan: Plan, folder: Path) -> None:
    needed = (len(plan.train.labels) + len(plan.test.labels)) * 3 * plan.side**2
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        reason = (
            f"needs {needed / MIB:,.1f} MiB for decoded images, but only {free / MIB:,.1f} MiB are free; use another "
            "folder (data.cache=...), fewer images (data.train_per_class=...) or a lower data.resolution"
        )
        raise DataError("data.cache", folder, reason)


def _write_part(part: Part, plan: Plan, path: Path, advance: Any) -> list[str]:
    """Decodes a part into a file; returns what is damaged."""
    row = 3 * plan.side**2
    failures: dict[int, str] = {}
    with path.with_suffix(".u8").open("w+b") as file:

        def decode(piece: Piece) -> dict[int, str]:
            pixels, failed = piece.decode()
            # Written, not mapped: what is mapped counts as this process's memory.
            _put(file.fileno(), np.ascontiguousarray(pixels).data.cast("B"), piece.start * row)
            advance(piece.count)
            return {piece.start + place: reason for place, reason in failed.items()}

        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        done = ahead(decode, part.pieces, threads, 2 * threads) if plan.takes_time else map(decode, part.pieces)
        for found in done:
            failures |= found
        kept = np.ones(len(part.labels), dtype=bool)
        kept[list(failures)] = False
        if failures:
            _close_gaps(file.fileno(), kept, row)
        os.fsync(file.fileno())
    np.save(path.with_name(f"{path.name}-labels.npy"), part.labels[kept])
    return [failures[place] for place in sorted(failures)]


def _put(file: int, content: memoryview, place: int) -> None:
    while content:
        written = os.pwrite(file, content, place)
        content, place = content[written:], place + written


def _close_gaps(file: int, kept: NDArray[np.bool_], row: int) -> None:
    for place, source in enumerate(np.flatnonzero(kept).tolist()):
        if place != source:
            _put(file, memoryview(os.pread(file, row, source * row)), place * row)
    os.ftruncate(file, int(kept.sum()) * row)


@contextmanager
def _progress(console: Console, title: str, total: int) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:
        if not console.is_interactive:
            print_text(console, f"{title[0].upper()}{title[1:]}: {total:,} images (cached for later runs).")
        task = progress.add_task(title, total=total)
        yield lambda count: progress.update(task, advance=count)
