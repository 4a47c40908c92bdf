"""The one door through which a driver reaches the world: every step of it passes a watcher.

Wraps SQLite's files (a VFS), the file calls of `os`, spawning and reaping, backoff, and the stores'
own operations. Works on the whole process, so it belongs into one that a test may lose. What
happens at a step (a kill, a fault, a record) is left to the watcher.
"""

import builtins
import errno
import io
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import anyio
import apsw

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.events import EventEnvelope
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.storage.sqlite import SqliteStore
from mfm_ops.storage.sqlite_writer import Append, NewArtifact, Writer

__all__ = ["BACKOFF_S", "Step", "Watcher", "install", "raw_write"]

BACKOFF_S = 0.007
"""The delay by which a plan's backoff is told from every other sleep of the engine."""

raw_write = os.write
"""The write that no watcher sees."""


class Step(NamedTuple):
    """One step; `path` is absolute, `data` what a write writes at `offset`.

    `kind` is one of create, write, truncate, sync, sync_directory, delete, mkdir, rename and link
    (to `target`); append (`offset` is the new head), put, commit; spawn, feed, reap; backoff; call,
    connect, send, receive.
    """

    kind: str
    path: str = ""
    target: str = ""
    offset: int = 0
    data: bytes = b""


class Watcher(Protocol):
    """Sees each step before and after it is taken."""

    def before(self, step: Step) -> None:
        """About to be taken; an OSError (ENOSPC, EROFS, EIO) refuses it, as a disk would."""

    def within(self, step: Step) -> None:
        """Half of it is done: half of the bytes are written, half of the time has passed."""

    def after(self, step: Step) -> None: ...


def install(watcher: Watcher) -> None:
    """Send every further step of this process past `watcher`."""
    # SQLite keeps the name alone: the object must live as long as the process.
    _KEPT.append(_DoorVfs(watcher))
    _watch_files(watcher)
    _watch_processes(watcher)
    _watch_backoff(watcher)
    _watch_stores(watcher)


_KEPT: list[object] = []


# SQLite's own files

_SQLITE_CODES = {
    errno.EIO: apsw.SQLITE_IOERR_FSYNC,
    errno.ENOSPC: apsw.SQLITE_FULL,
    errno.EROFS: apsw.SQLITE_READONLY,
}


@contextmanager
def _as_sqlite_says() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise apsw.exception_for(_SQLITE_CODES[error.errno or 0]) from None


class _DoorFile(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], watcher: Watcher) -> None:
        self._path = name if isinstance(name, str) else name.filename()
        self._watcher = watcher
        # The first sync of a log syncs its directory too, below this shim.
        self._syncs_directory = self._path.endswith(("-wal", "-journal"))
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        step = Step("write", self._path, offset=offset, data=bytes(data))
        with _as_sqlite_says():
            self._watcher.before(step)
        if len(data) > 1:
            super().xWrite(step.data[: len(data) // 2], offset)
            self._watcher.within(step)
        super().xWrite(step.data, offset)
        self._watcher.after(step)

    def xTruncate(self, size: int) -> None:  # noqa: N802 - SQLite's name
        step = Step("truncate", self._path, offset=size)
        with _as_sqlite_says():
            self._watcher.before(step)
        super().xTruncate(size)
        self._watcher.after(step)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        step = Step("sync", self._path)
        with _as_sqlite_says():
            self._watcher.before(step)
        super().xSync(flags)
        self._watcher.after(step)
        if self._syncs_directory:
            self._syncs_directory = False
            self._watcher.after(Step("sync_directory", str(Path(self._path).parent)))


class _DoorVfs(apsw.VFS):
    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        super().__init__("door", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        if name is None:
            return apsw.VFSFile("unix", name, flags)
        path = name if isinstance(name, str) else name.filename()
        missing = not Path(path).exists()
        file = _DoorFile(name, flags, self._watcher)
        if missing:
            self._watcher.after(Step("create", path))
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - SQLite's name
        step = Step("delete", filename)
        with _as_sqlite_says():
            self._watcher.before(step)
        super().xDelete(filename, syncdir)
        self._watcher.after(step)
        if syncdir:
            self._watcher.after(Step("sync_directory", str(Path(filename).parent)))


# The files beside it


class _DoorStream(io.FileIO):
    """A stream over a descriptor, whose bytes pass `os.write` as all others do."""

    def write(self, data: Any, /) -> int:
        return os.write(self.fileno(), bytes(data))


def _watch_files(watcher: Watcher) -> None:
    fsync, replace, unlink, mkdir, open_ = os.fsync, os.replace, os.unlink, os.mkdir, os.open
    link, stream = os.link, builtins.open

    def watched_link(src: Any, dst: Any, **options: Any) -> None:
        source = os.fspath(src)
        if source.startswith("/proc/self/fd/"):
            source = str(Path(source).readlink())
        step = Step("link", source, os.fspath(dst))
        watcher.before(step)
        link(src, dst, **options)
        watcher.after(step)

    def watched_stream(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if isinstance(file, int) and mode == "wb":
            return io.BufferedWriter(_DoorStream(file, mode, **options))
        return stream(file, mode, *arguments, **options)

    builtins.open = watched_stream

    def watched_write(fd: int, data: Any, /) -> int:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            step = Step("feed")
            watcher.before(step)
            done = raw_write(fd, data)
            watcher.after(step)
            return done
        offset = os.lseek(fd, 0, os.SEEK_CUR)
        step = Step("write", _path_of(fd), offset=offset, data=bytes(data))
        watcher.before(step)
        half = raw_write(fd, step.data[: len(step.data) // 2])
        watcher.within(step)
        done = half + raw_write(fd, step.data[half:])
        watcher.after(step)
        return done

    def watched_fsync(fd: Any) -> None:
        kind = "sync_directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "sync"
        step = Step(kind, _path_of(fd))
        watcher.before(step)
        fsync(fd)
        watcher.after(step)

    def watched_replace(src: Any, dst: Any, **options: Any) -> None:
        step = Step("rename", os.fspath(src), os.fspath(dst))
        watcher.before(step)
        replace(src, dst, **options)
        watcher.after(step)

    def watched_unlink(path: Any, **options: Any) -> None:
        step = Step("delete", os.fspath(path))
        watcher.before(step)
        unlink(path, **options)
        watcher.after(step)

    def watched_mkdir(path: Any, *arguments: Any, **options: Any) -> None:
        step = Step("mkdir", os.fspath(path))
        watcher.before(step)
        mkdir(path, *arguments, **options)
        watcher.after(step)

    def watched_open(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            watcher.before(Step("create"))
            fd = open_(path, flags, *arguments, **options)
            watcher.after(Step("create", _path_of(fd)))
            return fd
        if not flags & os.O_CREAT or Path(path).exists():
            return open_(path, flags, *arguments, **options)
        step = Step("create", os.fspath(path))
        watcher.before(step)
        fd = open_(path, flags, *arguments, **options)
        watcher.after(step)
        return fd

    for name, watched in {
        "write": watched_write,
        "fsync": watched_fsync,
        "replace": watched_replace,
        "link": watched_link,
        "unlink": watched_unlink,
        "mkdir": watched_mkdir,
        "open": watched_open,
    }.items():
        setattr(os, name, watched)


def _path_of(fd: int) -> str:
    return str(Path(f"/proc/self/fd/{fd}").readlink())


# Programs


def _watch_processes(watcher: Watcher) -> None:
    begin, wait = subprocess.Popen.__init__, subprocess.Popen.wait

    def watched_begin(self: Any, *arguments: Any, **options: Any) -> None:
        watcher.before(Step("spawn"))
        begin(self, *arguments, **options)
        watcher.after(Step("spawn"))

    def watched_wait(self: Any, *arguments: Any, **options: Any) -> int:
        watcher.before(Step("reap"))
        code = wait(self, *arguments, **options)
        watcher.after(Step("reap"))
        return code

    subprocess.Popen.__init__ = watched_begin  # type: ignore[method-assign]
    subprocess.Popen.wait = watched_wait  # type: ignore[method-assign]


def _watch_backoff(watcher: Watcher) -> None:
    sleep = anyio.sleep

    async def watched_sleep(delay: float) -> None:
        if delay != BACKOFF_S:
            await sleep(delay)
            return
        watcher.before(Step("backoff"))
        await sleep(delay / 2)
        watcher.within(Step("backoff"))
        await sleep(delay / 2)
        watcher.after(Step("backoff"))

    anyio.sleep = watched_sleep


# The stores


def _watch_stores(watcher: Watcher) -> None:
    append, put, commit = SqliteStore.append, SqliteStore.put, Writer.commit

    async def watched_append(
        self: SqliteStore, run_id: RunId, expected_seq: int, events: Sequence[EventEnvelope]
    ) -> int:
        watcher.before(Step("append"))
        head = await append(self, run_id, expected_seq, events)
        watcher.after(Step("append", offset=head))
        return head

    async def watched_put(self: SqliteStore, kind: ArtifactKind, data: bytes) -> ArtifactId:
        watcher.before(Step("put"))
        artifact_id = await put(self, kind, data)
        watcher.after(Step("put", target=artifact_id))
        return artifact_id

    def watched_commit(
        self: Writer, appends: Sequence[Append], artifacts: Sequence[NewArtifact], *, wait: bool
    ) -> bool:
        watcher.before(Step("commit"))
        done = commit(self, appends, artifacts, wait=wait)
        watcher.after(Step("commit"))
        return done

    for owner, name, watched in (
        (SqliteStore, "append", watched_append),
        (SqliteStore, "put", watched_put),
        (Writer, "commit", watched_commit),
    ):
        setattr(owner, name, watched)
