"""Opens a store's file: finds out whose it is, makes or migrates it, and says what is doubtful.

The tables are in `sqlite_schema`. Reading and writing events is left to `sqlite_reader` and
`sqlite_writer`, which open their connections through `connect`.
"""

import errno
import os
import stat
import time
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from mfm_ops.storage.blobs import blob_directory
from mfm_ops.storage.failures import store_moved
from mfm_ops.storage.locate import (
    HOST_SHARED_FILE_SYSTEMS,
    NETWORK_FILE_SYSTEMS,
    file_system_of,
)
from mfm_ops.storage.sqlite_create import check_name, make_store_file
from mfm_ops.storage.sqlite_errors import from_os, from_sqlite, lacks_room, refused
from mfm_ops.storage.sqlite_schema import FORMAT, create, file_format, migrate

__all__ = ["BUSY_TIMEOUT_MS", "Place", "connect", "has_wal_reset_bug", "prepare"]

BUSY_TIMEOUT_MS: Final = 10_000
"""How long a writer waits for another process's commit before it gives up as `store_busy`."""

_CREATION_S: Final = 0.5
_CREATION_POLL_S: Final = 0.005

_PAGE_BYTES: Final = 4096
_ROOM_BYTES: Final = 64 * 1024
"""What the log's index takes, and as much again for the directory's and the disk's own books."""

_MOUNTS: Final = Path("/proc/self/mountinfo")


class Place(NamedTuple):
    """Where a store is and how it may be used.

    `path` is the real one; `name` is what the user called it and what errors show. An `immutable`
    store is read without locks, since nobody can write it. `identity` is device and inode of the
    file that was opened to be written.
    """

    path: Path
    name: str
    read_only: bool = False
    immutable: bool = False
    warnings: tuple[str, ...] = ()
    identity: tuple[int, int] | None = None

    def check(self) -> None:
        """Refuse to go on with a file that is not under its name any more.

        What is written to one that was removed is gone when it is closed, and nobody is told.

        Raises:
            StorageFailure: `store_unavailable`, `moved`.
        """
        if self.identity is None:
            return
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise store_moved(self.name) from None
        except OSError:
            # Whoever may not look there any more writes to the open file as before.
            return
        if (found.st_dev, found.st_ino) != self.identity:
            raise store_moved(self.name)


def connect(place: Place) -> apsw.Connection:
    """A connection whose commits are durable when they return; the caller maps `apsw.Error`.

    Raises:
        StorageFailure: `store_read_only` where the place was to be written and cannot be;
            `store_unavailable` where another file has come there.
    """
    access = apsw.SQLITE_OPEN_READONLY if place.read_only else apsw.SQLITE_OPEN_READWRITE
    # As a URI, since a path may hold bytes that are no text.
    name = place.path.as_uri() + ("?immutable=1" if place.immutable else "")
    connection = apsw.Connection(name, flags=access | apsw.SQLITE_OPEN_URI)
    try:
        # SQLite falls back to reading where it may not write.
        if connection.readonly("main") and not place.read_only:
            raise refused("store_read_only", place.name)
        place.check()
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        # One statement a call: execution stops at the first pragma that returns a row.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
    except apsw.Error as error:
        no_room = lacks_room(error, connection)
        connection.close()
        if no_room:
            raise apsw.exception_for(apsw.SQLITE_FULL) from None
        raise
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
        check_name(real)
        if not _is_there(real, name):
            if read_only or not create_missing:
                raise refused("store_unavailable", name, "ENOENT")
            make_store_file(real)
    except (OSError, RuntimeError) as error:
        failure = (
            error
            if isinstance(error, OSError)
            else OSError(errno.ELOOP, "symbolic links in a circle")
        )
        raise from_os(failure, name, writing=not read_only) from None
    place = Place(real, name, read_only=read_only, warnings=warnings)
    try:
        if read_only:
            return _open_for_reading(place)
        connection = _open_for_writing(place)
        opened = real.stat()
        return place._replace(identity=(opened.st_dev, opened.st_ino)), connection
    except OSError as error:
        raise from_os(error, name, writing=True) from None
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


def _is_there(real: Path, name: str) -> bool:
    """Whether there is a file that SQLite may see; anything else is refused.

    A file that is gone or has 0 bytes held a store where what lies beside it says so. SQLite would
    take it for a new database, and delete the log that may hold all that is left.
    """
    # Before the file: who makes a store begins with it, so this is not somebody's beginning.
    has_log = _has_content(real.with_name(real.name + "-wal"))
    has_artifacts = blob_directory(real).exists()
    try:
        found = real.stat()
    except FileNotFoundError:
        # Whoever removed the file may have left the directory, which does no harm to a new one.
        if has_log:
            raise refused("store_corrupt", name, "emptied") from None
        return False
    if stat.S_ISDIR(found.st_mode):
        raise refused("store_unavailable", name, "EISDIR")
    if not stat.S_ISREG(found.st_mode):
        # SQLite takes a whole disk for an empty file, and waits for a pipe.
        raise refused("store_unavailable", name, "not_a_file")
    if found.st_size == 0 and (has_log or has_artifacts):
        raise refused("store_corrupt", name, "emptied")
    return True


def _open_for_writing(place: Place) -> apsw.Connection:
    _check_room(place)
    connection = connect(place)
    try:
        # Whoever closes a file last writes the log into it: not if it is somebody else's.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        found = file_format(connection, place.name)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
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
    except apsw.Error as error:
        failure = from_sqlite(error, place.name, connection)
        connection.close()
        raise failure from None
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
        _check_room(place)
        connection = connect(place)
        found = _format_or_close(connection, place.name)
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.FullError) as error:
        # Reading a write-ahead log needs the shared-memory file beside it, which cannot be made
        # here, or not now. Without a log the file is complete, and whoever may not write it may
        # read it.
        no_room = isinstance(error, apsw.FullError)
        if _has_content(place.path.with_name(place.path.name + "-wal")):
            if no_room:
                raise
            raise refused("store_unavailable", place.name, "log_not_readable") from None
        warning = "the store cannot be written by anybody here and is read as it is"
        if no_room:
            warning = "the disk is full, so that the store cannot be written and is read as it is"
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


def _check_room(place: Place) -> None:
    """Refuse a full disk of small blocks, where SQLite would end this process by SIGBUS.

    It maps the log's index into memory, and makes sure of the last block of each page only.
    """
    disk = os.statvfs(place.path.parent)
    # Where there are no blocks at all, as FUSE has it by default, the file system does not tell;
    # one that is mounted read-only takes no index.
    tells = disk.f_blocks and not disk.f_flag & os.ST_RDONLY
    if tells and disk.f_bsize < _PAGE_BYTES and disk.f_bavail * disk.f_frsize < _ROOM_BYTES:
        raise apsw.exception_for(apsw.SQLITE_FULL)


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
