"""Opens a store's file: finds out whose it is, makes or migrates it, and says what is doubtful.

The tables are in `sqlite_schema`. Reading and writing events is left to `sqlite_reader` and
`sqlite_writer`, which open their connections through `connect`.
"""

import errno
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from mfm_ops.storage.blobs import blob_directory, sync_directory
from mfm_ops.storage.locate import (
    HOST_SHARED_FILE_SYSTEMS,
    NETWORK_FILE_SYSTEMS,
    file_system_of,
)
from mfm_ops.storage.sqlite_errors import from_os, from_sqlite, refused
from mfm_ops.storage.sqlite_schema import FORMAT, create, file_format, migrate

__all__ = ["BUSY_TIMEOUT_MS", "Place", "connect", "has_wal_reset_bug", "prepare"]

BUSY_TIMEOUT_MS: Final = 10_000
"""How long a writer waits for another process's commit before it gives up as `store_busy`."""

_CREATION_S: Final = 0.5
_CREATION_POLL_S: Final = 0.005

_MOUNTS: Final = Path("/proc/self/mountinfo")


class Place(NamedTuple):
    """Where a store is and how it may be used.

    `path` is the real one; `name` is what the user called it and what errors show. An `immutable`
    store is read without locks, since nobody can write it.
    """

    path: Path
    name: str
    read_only: bool = False
    immutable: bool = False
    warnings: tuple[str, ...] = ()


def connect(place: Place) -> apsw.Connection:
    """A connection whose commits are durable when they return; the caller maps `apsw.Error`.

    Raises:
        StorageFailure: `store_read_only` where the place was to be written and cannot be.
    """
    if place.immutable:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(f"{place.path.as_uri()}?immutable=1", flags=flags)
    elif place.read_only:
        connection = apsw.Connection(str(place.path), flags=apsw.SQLITE_OPEN_READONLY)
    else:
        connection = apsw.Connection(str(place.path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        # SQLite falls back to reading where it may not write.
        if connection.readonly("main") and not place.read_only:
            raise refused("store_read_only", place.name)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        # One statement a call: execution stops at the first pragma that returns a row.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(
    path: Path, *, create_missing: bool, read_only: bool, allow_network: bool
) -> tuple[Place, apsw.Connection]:
    """A place that holds a store of the present format, and the first connection to it.

    Raises:
        StorageFailure: `store_unavailable`, `store_read_only`, `store_not_mfm`,
            `unsupported_format`, `store_corrupt`, `store_busy`, `store_full`, `store_io_error`.
    """
    name = str(path)
    try:
        real = path.resolve()
        warnings = _doubts(real, name, refuse=not (read_only or allow_network))
        if not real.exists():
            if read_only or not create_missing:
                raise refused("store_unavailable", name, "ENOENT")
            _make_file(real)
        elif real.is_dir():
            raise refused("store_unavailable", name, "EISDIR")
        elif _was_emptied(real):
            raise refused("store_corrupt", name, "emptied")
    except (OSError, RuntimeError) as error:
        failure = (
            error
            if isinstance(error, OSError)
            else OSError(errno.ELOOP, "symbolic links in a circle")
        )
        raise from_os(failure, name, writing=not read_only) from None
    place = Place(real, name, read_only=read_only, warnings=warnings)
    try:
        return _open_for_reading(place) if read_only else (place, _open_for_writing(place))
    except apsw.Error as error:
        raise from_sqlite(error, name) from None


def has_wal_reset_bug(version: str) -> bool:
    """Whether this SQLite may corrupt a write-ahead log that several connections write.

    >>> has_wal_reset_bug("3.40.1"), has_wal_reset_bug("3.51.3")
    (True, False)
    """
    numbers = tuple(int(part) for part in version.split("."))
    return (3, 7, 0) <= numbers <= (3, 51, 2)


def _doubts(real: Path, name: str, *, refuse: bool) -> tuple[str, ...]:
    warnings = []
    if has_wal_reset_bug(apsw.sqlite_lib_version()):
        warnings.append(
            f"SQLite {apsw.sqlite_lib_version()} can corrupt a store that several processes "
            "write; install an apsw with SQLite 3.51.3 or later"
        )
    file_system = file_system_of(real, _mounts())
    if file_system in NETWORK_FILE_SYSTEMS:
        if refuse:
            raise refused("store_unavailable", name, f"network_file_system:{file_system}")
        warnings.append(
            f"the store lies on a network file system ({file_system}): only one host may use it, "
            "or it will be corrupted"
        )
    elif file_system in HOST_SHARED_FILE_SYSTEMS:
        warnings.append(
            f"the store lies on a file system shared with a host ({file_system}): do not use it "
            "from both sides at once"
        )
    return tuple(warnings)


def _mounts() -> str:
    try:
        return _MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return ""


def _make_file(real: Path) -> None:
    """An empty private file whose name survives a power failure."""
    missing = [parent for parent in real.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)
        sync_directory(parent.parent)
    try:
        # SQLite would give it the umask's mode. Never open an existing store's file: closing it
        # would drop the locks that this process's connections hold.
        os.close(os.open(real, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    sync_directory(real.parent)


def _was_emptied(real: Path) -> bool:
    """Whether a file of 0 bytes held a store: what lies beside it says so.

    SQLite would take it for a new database, and delete the log that may hold all that is left.
    """
    # Before the size: who makes a store fills the file first, so this is not somebody's beginning.
    has_log = _has_content(real.with_name(real.name + "-wal"))
    has_artifacts = blob_directory(real).exists()
    return (has_log or has_artifacts) and real.stat().st_size == 0


def _open_for_writing(place: Place) -> apsw.Connection:
    connection = connect(place)
    try:
        found = file_format(connection, place.name)
        # Not before the file is known to be ours: this changes it.
        if not _use_log(connection):
            raise refused("store_unavailable", place.name, "no_write_ahead_log")
        if found != FORMAT:
            connection.execute("BEGIN IMMEDIATE")
            # Another process may have been faster.
            found = file_format(connection, place.name)
            if found is None:
                create(connection)
            else:
                migrate(connection, found)
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _use_log(connection: apsw.Connection) -> bool:
    """Switch to the write-ahead log; False where there can be none."""
    give_up = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            return bool(connection.pragma("journal_mode", "wal") == "wal")
        except apsw.BusyError:
            # Where two switch a new file at once, SQLite refuses one of them without waiting.
            if time.monotonic() > give_up:
                raise
            time.sleep(0.005)


def _open_for_reading(place: Place) -> tuple[Place, apsw.Connection]:
    try:
        connection = connect(place)
        found = _format_or_close(connection, place.name)
    except (apsw.CantOpenError, apsw.ReadOnlyError):
        # Reading a write-ahead log needs the shared-memory file beside it, which cannot be made
        # here. Without a log the file is complete, and whoever may not write it may read it.
        if _has_content(place.path.with_name(place.path.name + "-wal")):
            raise refused("store_unavailable", place.name, "log_not_readable") from None
        warning = "the store cannot be written by anybody here and is read as it is"
        place = Place(place.path, place.name, True, True, (*place.warnings, warning))
        connection = connect(place)
        found = _format_or_close(connection, place.name)
    if found != FORMAT:
        connection.close()
        if found is None:
            raise refused("store_not_mfm", place.name, "empty")
        # An older store becomes readable when it has been migrated.
        raise refused("store_read_only", place.name)
    return place, connection


def _format_or_close(connection: apsw.Connection, name: str) -> int | None:
    try:
        found = file_format(connection, name)
        deadline = time.monotonic() + _CREATION_S
        while found is None and time.monotonic() < deadline:
            # A new store's file is empty for a moment: its maker is about to fill it.
            time.sleep(_CREATION_POLL_S)
            found = file_format(connection, name)
        return found
    except BaseException:
        connection.close()
        raise


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
