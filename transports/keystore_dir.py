"""Find and read the keystore files of one directory, whatever lies in it.

Hostile things are warnings: pipes are not opened, links do not lead out, a large file is not
read. What a file's content means is left to `keystore_format`.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from transports.keystore_format import MAX_FILE_BYTES, Entry, entry_of
from transports.keystore_warnings import FileWarning, KeystoreRefused, warning

__all__ = ["KeystoreDir", "Listing", "MAX_FILES", "TooManyFiles", "opened"]

MAX_FILES: Final = 10_000
# A few milliseconds at most, which an event loop can spare; beyond that a worker thread reads.
_SMALL_FILES: Final = 16
_SMALL_BYTES: Final = 256 * 1024

_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class TooManyFiles(Exception):
    """The directory holds more than `MAX_FILES` names: it is not a keystore directory."""


class Listing(NamedTuple):
    """All that could be told about a directory; entries and warnings in order of file names."""

    entries: list[Entry]
    warnings: list[FileWarning]


class KeystoreDir:
    """An open directory. Files are taken relative to it, so replacing the path changes nothing."""

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd
        self._names, self._small = self._scan()

    @property
    def names(self) -> list[str]:
        """The names that may be keystores, in order; not utf-8 is surrogate-escaped (PEP 383).

        Hidden files and editors' backups (`name~`) are passed over, as geth does.
        """
        return self._names

    @property
    def is_small(self) -> bool:
        """Whether reading it all is so quick that no worker thread is needed."""
        return self._small

    def _scan(self) -> tuple[list[str], bool]:
        names: list[str] = []
        small, total_bytes = True, 0
        with os.scandir(self._fd) as found:
            for item in found:
                if item.name.startswith(".") or item.name.endswith("~"):
                    continue
                names.append(item.name)
                if len(names) > MAX_FILES:
                    raise TooManyFiles
                if small:
                    total_bytes += _size_bytes(item)
                    small = len(names) <= _SMALL_FILES and total_bytes <= _SMALL_BYTES
        return sorted(names), small

    def read(self, checkpoint: Callable[[], None]) -> Listing:
        """Read every file; `checkpoint` is called before each and may raise to stop."""
        entries: list[Entry] = []
        warnings: list[FileWarning] = []
        for name in self._names:
            checkpoint()
            try:
                entry, remarks = entry_of(name, self._read_file(name))
            except FileNotFoundError:
                continue  # removed since the scan
            except OSError:
                warnings.append(warning(name, "unreadable"))
            except KeystoreRefused as refused:
                warnings.append(warning(name, refused.reason))
            else:
                entries.append(entry)
                warnings.extend(remarks)
        entries.sort(key=lambda entry: entry["file"])
        warnings.sort(key=lambda one: (one["file"], one["reason"]))
        return Listing(entries, warnings)

    def _read_file(self, name: str) -> bytes:
        status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            name = self._link_target(name)
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        # Before opening: opening a device can already do something.
        _check_regular(status)
        fd = os.open(name, _OPEN_FLAGS, dir_fd=self._fd)
        try:
            _check_regular(os.fstat(fd))
            return _read_bounded(fd)
        finally:
            os.close(fd)

    def _link_target(self, name: str) -> str:
        """Where the link leads, relative to the directory. Mounted secrets are links within it."""
        root = os.path.realpath(self._path)
        try:
            target = os.path.realpath(f"{root}/{name}", strict=True)
        except PermissionError:
            raise
        except OSError:
            raise KeystoreRefused("symlink_broken") from None
        if os.path.commonpath((root, target)) != root:
            raise KeystoreRefused("symlink_outside")
        return os.path.relpath(target, root)


@contextmanager
def opened(path: str) -> Iterator[KeystoreDir]:
    """The directory at the absolute `path`.

    Raises:
        FileNotFoundError: nothing is there.
        NotADirectoryError: something else is there.
        OSError: it cannot be read.
        TooManyFiles: it holds more than `MAX_FILES` names.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield KeystoreDir(path, fd)
    finally:
        os.close(fd)


def _size_bytes(item: os.DirEntry[str]) -> int:
    """What reading the file may cost at most; a link's target is not looked at yet."""
    if item.is_symlink():
        return MAX_FILE_BYTES
    try:
        return item.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise KeystoreRefused("directory")
    if not stat.S_ISREG(status.st_mode):
        raise KeystoreRefused("not_a_regular_file")
    if status.st_size > MAX_FILE_BYTES:
        raise KeystoreRefused("too_large")


def _read_bounded(fd: int) -> bytes:
    """At most one byte past the bound: the size in the directory is no promise."""
    chunks: list[bytes] = []
    left = MAX_FILE_BYTES + 1
    while left and (chunk := os.read(fd, min(left, 1 << 16))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)
