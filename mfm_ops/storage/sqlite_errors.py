"""What SQLite and the operating system say of a failure, as storage failures.

Pure mapping. What to do after a failure (roll back, open the file anew) is left to
`sqlite_writer`.
"""

import errno
from collections.abc import Mapping
from typing import Final

import apsw

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import StorageError, StorageFailure

__all__ = ["from_os", "from_sqlite", "is_busy", "lacks_room", "refused"]

_MESSAGES: Final[Mapping[str, str]] = {
    "store_busy": "another process holds the store's write lock",
    "store_corrupt": "the store's file is damaged",
    "store_full": "the disk is full",
    "store_io_error": "the disk failed a read or a write",
    "store_not_mfm": "the file is no mfm store",
    "store_read_only": "the store cannot be written",
    "store_unavailable": "the store's file cannot be opened",
}

# By primary result code; what is not here is a damaged schema or a mistake of ours.
_CODES: Final[Mapping[int, str]] = {
    apsw.SQLITE_AUTH: "store_unavailable",
    apsw.SQLITE_BUSY: "store_busy",
    apsw.SQLITE_CANTOPEN: "store_unavailable",
    apsw.SQLITE_CORRUPT: "store_corrupt",
    apsw.SQLITE_FULL: "store_full",
    apsw.SQLITE_IOERR: "store_io_error",
    apsw.SQLITE_LOCKED: "store_busy",
    apsw.SQLITE_NOLFS: "store_full",
    apsw.SQLITE_NOMEM: "store_io_error",
    apsw.SQLITE_NOTADB: "store_not_mfm",
    apsw.SQLITE_PERM: "store_unavailable",
    apsw.SQLITE_PROTOCOL: "store_busy",
    apsw.SQLITE_READONLY: "store_read_only",
}

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
# Something else is in the way: no fault of the disk.
_ABSENT = frozenset(
    {
        errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL,
        errno.EEXIST, errno.ENOTEMPTY, errno.EXDEV,
    }
)  # fmt: skip


def refused(code: str, path: str, reason: str | None = None) -> StorageFailure:
    """The failure `code` about the store at `path`."""
    details = {"path": path} if reason is None else {"path": path, "reason": reason}
    info = error_info(code, _MESSAGES[code], **details)
    if code == "store_corrupt":
        return StorageFailure(StorageError(Corruption=info))
    return StorageFailure(StorageError(Other=info))


def from_sqlite(
    error: apsw.Error, path: str, connection: apsw.Connection | None = None
) -> StorageFailure:
    """The failure that SQLite's `error` stands for; the reason is SQLite's name of the result.

    The `connection`, on which nothing was done since, knows what the system said.
    """
    primary = getattr(error, "result", apsw.SQLITE_ERROR) & 0xFF
    extended = getattr(error, "extendedresult", primary)
    code = _CODES.get(primary, "store_corrupt")
    if connection is not None and lacks_room(error, connection):
        code = "store_full"
    names = apsw.mapping_extended_result_codes, apsw.mapping_result_codes
    reason = names[0].get(extended) or names[1].get(primary) or "SQLITE_ERROR"
    needs_reason = code in {"store_corrupt", "store_unavailable", "store_io_error"}
    return refused(code, path, str(reason) if needs_reason else None)


def from_os(error: OSError, path: str, *, writing: bool) -> StorageFailure:
    """The failure that the system's `error` stands for."""
    number = error.errno or errno.EIO
    reason = errno.errorcode.get(number, str(number))
    if number in _FULL:
        return refused("store_full", path)
    if writing and number in _FORBIDDEN:
        return refused("store_read_only", path)
    if number in _FORBIDDEN | _ABSENT:
        return refused("store_unavailable", path, reason)
    return refused("store_io_error", path, reason)


def is_busy(error: apsw.Error) -> bool:
    """Whether another connection holds the lock that was asked for."""
    return isinstance(error, (apsw.BusyError, apsw.LockedError))


def lacks_room(error: apsw.Error, connection: apsw.Connection) -> bool:
    """Whether the disk is full, if not by SQLite's word, then by the system's.

    SQLite calls only ENOSPC of a write a full disk. A quota that is used up, a limit on file sizes
    and no room for the log's index are failed writes to it.
    """
    primary = getattr(error, "result", apsw.SQLITE_ERROR) & 0xFF
    return isinstance(error, apsw.FullError) or (
        primary == apsw.SQLITE_IOERR and connection.system_errno in _FULL
    )
