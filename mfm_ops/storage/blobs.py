"""Large artifacts as files beside the store: `<file>.d/<aa>/<sha256>`, complete or not there.

Which artifacts are large, and the row that names a file, is left to `sqlite`. A file without a
row is harmless: a crash came in between, and the next put of these bytes writes it again.
"""

import contextlib
import fcntl
import os
import secrets
from pathlib import Path

from mfm_ops.machine.canonical import artifact_id_for_bytes
from mfm_ops.machine.ids import ArtifactId
from mfm_ops.storage.failures import artifact_corrupt
from mfm_ops.storage.sqlite_errors import from_os

__all__ = ["Blobs", "blob_directory", "sync_directory"]


class Blobs:
    """The directory of large artifacts of one store; all methods block.

    Temporary files lie in `<file>.d/tmp`, each locked by the process that writes it, so that one
    whose lock is free is known to be abandoned.
    """

    def __init__(self, store: Path, name: str) -> None:
        self._root = blob_directory(store)
        self._temporary = self._root / "tmp"
        self._name = name

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
                if not directory.exists():
                    directory.mkdir(mode=0o700, exist_ok=True)
                    sync_directory(directory.parent)
            descriptor, temporary = self._create()
            try:
                try:
                    _write_all(descriptor, data)
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

    def read(self, artifact_id: ArtifactId) -> bytes:
        """The bytes, verified.

        Raises:
            StorageFailure: `artifact_corrupt` when the file is gone or holds other bytes;
                `store_io_error`, `store_unavailable`.
        """
        try:
            data = self.path(artifact_id).read_bytes()
        except FileNotFoundError:
            raise artifact_corrupt(artifact_id) from None
        except OSError as error:
            raise from_os(error, self._name, writing=False) from None
        if artifact_id_for_bytes(data) != artifact_id:
            raise artifact_corrupt(artifact_id)
        return data

    def sweep(self) -> None:
        """Remove temporary files whose writers died; those of living processes stay."""
        with contextlib.suppress(OSError):
            for abandoned in self._temporary.iterdir():
                with contextlib.suppress(OSError):
                    _remove_unless_locked(abandoned)

    def _create(self) -> tuple[int, Path]:
        while True:
            temporary = self._temporary / secrets.token_hex(16)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # A sweeper may have come between the two calls.
                if os.fstat(descriptor).st_nlink:
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


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _remove_unless_locked(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
