"""Atomic writing of files, and the error message for files that cannot be written."""

from __future__ import annotations

import errno
import glob
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ablations.common.errors import SuiteError, UsageError


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes a file atomically: under a temporary name that is renamed, so that readers see the old or the new content.

    A writer that fails leaves the old content and no other file; one that is killed leaves its partial file, which
    `discard_partials` removes. The file gets the default permissions; its folder is created; text is UTF-8.

    Raises:
        OSError: if it cannot be written; `filename` is the path, or the folder that cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):  # the file may not exist, or the disk may be read-only
            partial.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def discard_partials(path: Path) -> None:
    """Removes partial files of killed writers; no other process may be writing the file."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        partial.unlink(missing_ok=True)


def user_path(option: str, path: str) -> Path:
    """Returns the path that an option names, with `~` or `~name` replaced by the home folder.

    Raises:
        UsageError: if the home folder is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:  # raised by pathlib if neither HOME nor the list of accounts has it
        name = path.partition("/")[0]
        reason = f"home folder {name} not found (HOME is not set, or the account does not exist); give a full path"
        raise UsageError(option, path, reason) from None


@contextmanager
def refusals_explained(
    option: str, place: object, advice: str = "", *, names_file: bool = False, error: type[SuiteError] = UsageError
) -> Iterator[None]:
    """Turns a failure to write into an error of the option that has to be corrected; `advice` follows the reason.

    `place` is the option's value in the message; with `names_file` it is the file that cannot be written, if known.

    Raises:
        SuiteError: in place of an OSError; `error` is its class.
    """
    try:
        yield
    except OSError as refusal:
        value = (refusal.filename if names_file else None) or place
        raise error(option, value, f"cannot be written: {refusal.strerror or refusal}{advice}") from None


def check_path(option: str, path: Path) -> None:
    """Raises UsageError if a name in a path is too long for the file system or contains a NUL character."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            reason = "contains a name that is too long for the file system (usually 255 bytes)"
            raise UsageError(option, path, reason) from None
    except ValueError:
        raise UsageError(option, path, "must not contain a NUL character") from None
