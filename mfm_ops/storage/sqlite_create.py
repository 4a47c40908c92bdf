"""Makes the file of a new store: whole and empty, or not there.

A process that dies on the way leaves nothing, and nobody ever reads half a store. What is in a new
store is left to `sqlite_schema`; what an empty file is taken for, to `sqlite_open`.
"""

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

import apsw

from mfm_ops.storage.blobs import sync_directory, write_all
from mfm_ops.storage.sqlite_schema import create

__all__ = ["check_name", "make_store_file"]

# The header's write and read version (SQLite file format, 1.3.3): 2 is the write-ahead log, which a
# database in memory cannot be switched to.
_VERSIONS: Final = slice(18, 20)
_WITH_LOG: Final = b"\x02\x02"

_MAX_PATH_BYTES: Final = 512 - len("-journal")
"""What SQLite leaves of its own bound, whatever files it then makes."""

# What a file system or kernel says that has no files without a name, or cannot give them one.
# AppArmor has links as a right of their own. Where nothing may be made, the plain way says so too.
_UNSUPPORTED: Final = frozenset(
    {
        errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.EPERM, errno.EACCES,
        errno.EXDEV,
    }
)  # fmt: skip


def make_store_file(real: Path) -> None:
    """A new store under the name `real`, private, and there after a power failure.

    Where another process was faster, its file stays. Raises OSError.
    """
    missing = [parent for parent in real.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)
        sync_directory(parent.parent)
    if not _make_whole(real):
        _make_empty(real)
    sync_directory(real.parent)


def check_name(real: Path) -> None:
    """Refuse a name that leaves no room for the files beside it, before any of them is made."""
    if len(os.fsencode(real)) > _MAX_PATH_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    with contextlib.suppress(FileNotFoundError):
        real.with_name(real.name + "-wal").lstat()


def _make_whole(real: Path) -> bool:
    """Fill a file that has no name, then name it; False where that is not possible here."""
    try:
        descriptor = os.open(real.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    try:
        write_all(descriptor, _image())
        os.fsync(descriptor)
        # With a directory's descriptor, for without one Python would link the symbolic link.
        os.link(f"/proc/self/fd/{descriptor}", real, src_dir_fd=descriptor)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    finally:
        # Before anybody in this process opens it: closing drops the locks of all its descriptors.
        os.close(descriptor)
    return True


def _make_empty(real: Path) -> None:
    """An empty file, to be filled by a transaction; who dies in between leaves it empty."""
    # SQLite would give it the umask's mode. Never open an existing store's file: closing it
    # would drop the locks that this process's connections hold.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(real, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _image() -> bytes:
    """The bytes of a store without runs."""
    connection = apsw.Connection(":memory:")
    try:
        create(connection)
        image = bytearray(connection.serialize("main"))
    finally:
        connection.close()
    image[_VERSIONS] = _WITH_LOG
    return bytes(image)
