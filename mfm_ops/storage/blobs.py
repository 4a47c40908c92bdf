"""Large artifacts as files beside the store: `<file>.d/<aa>/<sha256>`, complete or not there.

Which artifacts are large, and the row that names a file, is left to `sqlite`. A file without a
row is harmless: a crash came in between, and the next put of these bytes writes it again.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from pathlib import Path
from typing import BinaryIO, Final

from mfm_ops.machine.canonical import artifact_id_for_bytes
from mfm_ops.machine.ids import ArtifactId
from mfm_ops.storage.failures import artifact_corrupt
from mfm_ops.storage.sqlite_errors import from_os

__all__ = ["Blobs", "blob_directory", "sync_directory", "write_all"]

_TEMPORARY: Final = re.compile("[0-9a-f]{32}")


class Blobs:
    """The directory of large artifacts of one store; all methods block.

    Temporary files lie in `<file>.d/tmp`, each locked by the process that writes it, so that one
    whose lock is free is known to be abandoned. All has the owner and mode of the store's file, as
    SQLite does with its log: otherwise what root wrote would be out of the owner's reach.
    """

    def __init__(self, store: Path, name: str) -> None:
        self._store = store
        self._root = blob_directory(store)
        self._temporary = self._root / "tmp"
        self._name = name
        self._durable: set[Path] = set()

    @property
    def root(self) -> Path:
        """The directory itself, which is made with the first large artifact."""
        return self._root

    def path(self, artifact_id: ArtifactId) -> Path:
        """Where the artifact's bytes are."""
        return self._root / artifact_id[:2] / artifact_id

    def has(self, artifact_id: ArtifactId, size: int) -> bool:
        """Whether the file is there in full length."""
        try:
            return self.path(artifact_id).stat().st_size == size
        except OSError:
            return False

    def write(self, artifact_id: ArtifactId, data: bytes) -> None:
        """Store `data`, durably, under its id.

        Raises:
            StorageFailure: `store_full`, `store_read_only` or `store_io_error`.
        """
        target = self.path(artifact_id)
        try:
            for directory in (self._root, self._temporary, target.parent):
                self._make(directory)
            descriptor, temporary = self._create()
            try:
                try:
                    write_all(descriptor, data)
                    os.fsync(descriptor)
                    temporary.replace(target)
                except BaseException:
                    temporary.unlink(missing_ok=True)
                    raise
            finally:
                os.close(descriptor)
            sync_directory(target.parent)
        except OSError as error:
            raise from_os(error, self._name, writing=True) from None

    def open(self, artifact_id: ArtifactId) -> BinaryIO:
        """The artifact's file; FileNotFoundError where there is something else."""
        # A pipe would wait for somebody who writes.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self.path(artifact_id), flags)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileNotFoundError(errno.ENOENT, "no regular file")
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise

    def read(self, artifact_id: ArtifactId, size: int) -> bytes:
        """The `size` bytes, verified.

        Raises:
            StorageFailure: `artifact_corrupt` when the file is gone or holds other bytes;
                `store_io_error`, `store_unavailable`.
        """
        try:
            with self.open(artifact_id) as file:
                # The size first: a file that is far too large must not fill the memory.
                right = os.fstat(file.fileno()).st_size == size
                data = file.read(size) if right else b""
        except FileNotFoundError:
            raise artifact_corrupt(artifact_id) from None
        except OSError as error:
            raise from_os(error, self._name, writing=False) from None
        if not right or artifact_id_for_bytes(data) != artifact_id:
            raise artifact_corrupt(artifact_id)
        return data

    def sweep(self) -> None:
        """Remove temporary files whose writers died; those of living processes stay."""
        with contextlib.suppress(OSError):
            # Not through a link: behind it lies what is not ours.
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            directory = os.open(self._temporary, flags)
            try:
                with os.scandir(directory) as entries:
                    names = [entry.name for entry in entries if _TEMPORARY.fullmatch(entry.name)]
                for name in names:
                    with contextlib.suppress(OSError):
                        _remove_unless_locked(name, directory)
            finally:
                os.close(directory)

    def _make(self, directory: Path) -> None:
        """A directory whose name is durable, whoever made it."""
        if not directory.exists():
            directory.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._share(descriptor)
            finally:
                os.close(descriptor)
        elif directory in self._durable:
            return
        # Another process may have made it, and died or not come to this yet.
        sync_directory(directory.parent)
        self._durable.add(directory)

    def _share(self, descriptor: int) -> None:
        """Give what was made the owner and mode of the store's file."""
        store, made = self._store.stat(), os.fstat(descriptor)
        mode = store.st_mode & 0o666
        if stat.S_ISDIR(made.st_mode):
            # Who may read a file may look into its directory.
            mode |= (mode & 0o444) >> 2 | (made.st_mode & stat.S_ISGID)
        # As SQLite takes it: not every file system has modes, and a container's root cannot give
        # to an owner whom its container has no number for. What was made is private, then.
        if stat.S_IMODE(made.st_mode) != mode:
            with contextlib.suppress(OSError):
                os.fchmod(descriptor, mode)
        if os.geteuid() == 0 and (made.st_uid, made.st_gid) != (store.st_uid, store.st_gid):
            with contextlib.suppress(OSError):
                os.fchown(descriptor, store.st_uid, store.st_gid)

    def _create(self) -> tuple[int, Path]:
        while True:
            temporary = self._temporary / secrets.token_hex(16)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # A sweeper may have come between the two calls.
                if os.fstat(descriptor).st_nlink:
                    self._share(descriptor)
                    return descriptor, temporary
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def blob_directory(store: Path) -> Path:
    """Where the large artifacts of the store in the file `store` lie."""
    return store.with_name(store.name + ".d")


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, as `os.write` does not promise to."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _remove_unless_locked(name: str, directory: int) -> None:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(name, flags, dir_fd=directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=directory)
    finally:
        os.close(descriptor)
