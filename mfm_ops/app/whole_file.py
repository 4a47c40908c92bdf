"""A file that is there whole or not at all; what dead writers left of theirs is removed.

What is written is left to the callers.
"""

import fcntl
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EEXIST, EISDIR
from pathlib import Path
from typing import BinaryIO, Final

from mfm_ops.app.spool import STANDARD_STREAM

__all__ = ["whole_file", "written"]

_PREFIX: Final = ".mfm-export-"


@contextmanager
def written(target: str, *, force: bool) -> Iterator[BinaryIO]:
    """A stream to what a user calls `target`: a file, a device or pipe, or `-` (standard output).

    Raises:
        OSError: as `whole_file`; `target` is a directory (`EISDIR`), or is there already (`EEXIST`)
            and not to be replaced by `force`.
    """
    path = Path(target)
    if target == STANDARD_STREAM:
        # What was printed as text comes first.
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if force and path.exists() and not (path.is_file() or path.is_dir()):
        # A device or a pipe is written to, not replaced.
        with path.open("wb") as stream:
            yield stream
        return
    if path.is_dir():
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), target)
    if path.exists() and not force:
        raise FileExistsError(EEXIST, os.strerror(EEXIST), target)
    with whole_file(path, force=force) as file:
        yield file


@contextmanager
def whole_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A stream that becomes the file `path` when all went well; only `force` replaces one.

    Until then it has another name beside it, and is locked: one whose lock is free is known to be
    abandoned, and removed by the next who writes here.

    Raises:
        OSError: the file cannot be written, or appeared meanwhile (`EEXIST`).
    """
    _sweep(path.parent)
    descriptor, temporary = _create(path.parent)
    try:
        # The lock lasts as long as the descriptor, so that is not the stream's to close.
        with open(descriptor, "wb", closefd=False) as file:
            yield file
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(descriptor, 0o666 & ~mask)
        os.fsync(descriptor)
        _name(temporary, path, force=force)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


def _create(directory: Path) -> tuple[int, Path]:
    while True:
        temporary = directory / f"{_PREFIX}{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600)
        # Where nothing can be locked, nothing is swept either.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # A sweeper may have come between the two calls.
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)


def _sweep(directory: Path) -> None:
    with suppress(OSError):
        for abandoned in directory.glob(f"{_PREFIX}*"):
            with suppress(OSError):
                _remove_unless_locked(abandoned)


def _remove_unless_locked(path: Path) -> None:
    # A pipe of that name is nothing to wait for.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _name(temporary: Path, path: Path, *, force: bool) -> None:
    """Give the finished file its name, durably."""
    if force:
        temporary.replace(path)
    else:
        # Unlike a rename it takes nobody's place, also if a file appeared meanwhile.
        path.hardlink_to(temporary)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
