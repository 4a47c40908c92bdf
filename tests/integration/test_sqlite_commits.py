"""How the SQLite store commits: shared, interrupted, in another process's way, on a bad disk."""

import asyncio
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest
from anyio.lowlevel import checkpoint

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import RunId
from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store
from tests.contracts.event_store_suite import ended, said, started, stream
from tests.integration.sqlite_stores import LARGE, python

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = open_sqlite_store(path)
    yield opened
    opened.close()


@pytest.fixture
def other_process(path: Path, store: SqliteStore) -> Iterator[apsw.Connection]:
    """A connection that can hold the write lock, as another process would."""
    connection = apsw.Connection(str(path))
    yield connection
    connection.close()


# Sharing


@pytest.mark.parametrize("writers", [2, 5, 50])
async def test_appends_that_wait_together_share_a_commit(store: SqliteStore, writers: int) -> None:
    async def write() -> None:
        run = RunId.random()
        for seq in range(6):
            await store.append(run, seq, [said(run, seq + 1)])

    async with anyio.create_task_group() as group:
        for _ in range(writers):
            group.start_soon(write)
    # The first goes alone, before the others are there, and stays one ahead.
    assert store.commits <= 7


async def test_appends_and_puts_share_a_commit(store: SqliteStore) -> None:
    run = RunId.random()
    await store.append(run, 0, stream(run, 1))
    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(store.put, ArtifactKind.Output, bytes([number]))
        group.start_soon(store.append, run, 1, [ended(run, 2)])
    assert store.commits == 2


async def test_a_long_row_of_commits_gives_the_loop_its_turns(store: SqliteStore) -> None:
    run = RunId.random()
    turns: list[int] = []
    for seq in range(24):
        asyncio.get_running_loop().call_soon(turns.append, seq)
        await store.append(run, seq, [said(run, seq + 1)])
        if seq in {0, 1, 7, 15, 23}:
            assert turns == list(range(seq + 1))


# In another process's way


async def test_an_append_waits_for_another_process_and_the_loop_does_not(
    store: SqliteStore, other_process: apsw.Connection
) -> None:
    run = RunId.random()
    other_process.execute("BEGIN IMMEDIATE")
    heads: list[int] = []

    async def write() -> None:
        heads.append(await store.append(run, 0, stream(run, 1)))

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        while store._queue._landed is None:
            await checkpoint()
        # Reading goes on meanwhile.
        assert await store.head_seq(run) == 0
        other_process.execute("ROLLBACK")
    assert heads == [1]


async def test_a_lock_that_is_held_for_long_is_busy(
    store: SqliteStore, other_process: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mfm_ops.storage.sqlite_writer.BUSY_TIMEOUT_MS", 1)
    run = RunId.random()
    other_process.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageFailure) as failure:
        await store.append(run, 0, stream(run, 1))
    assert failure.value.info.code == "store_busy"
    assert failure.value.info.retryable
    other_process.execute("ROLLBACK")
    assert await store.append(run, 0, stream(run, 1)) == 1


# Cancellation


async def test_a_cancelled_append_that_still_waits_is_withdrawn(
    store: SqliteStore, other_process: apsw.Connection
) -> None:
    first, second, third = (RunId.random() for _ in range(3))
    scope = anyio.CancelScope()
    other_process.execute("BEGIN IMMEDIATE")

    async def write(run: RunId) -> None:
        await store.append(run, 0, stream(run, 1))

    async def write_and_be_cancelled() -> None:
        with scope:
            await store.append(second, 0, stream(second, 1))

    async with anyio.create_task_group() as group:
        group.start_soon(write, first)
        while store._queue._landed is None:
            await checkpoint()
        group.start_soon(write_and_be_cancelled)
        group.start_soon(write, third)
        while len(store._queue._waiting) < 2:
            await checkpoint()
        scope.cancel()
        while not scope.cancelled_caught:
            await checkpoint()
        other_process.execute("ROLLBACK")
    assert [await store.head_seq(run) for run in (first, second, third)] == [1, 0, 1]


async def test_an_append_that_has_begun_is_shielded_to_its_end(
    store: SqliteStore, other_process: apsw.Connection
) -> None:
    run = RunId.random()
    heads: list[int] = []
    other_process.execute("BEGIN IMMEDIATE")

    async def write() -> None:
        heads.append(await store.append(run, 0, stream(run, 1)))
        await checkpoint()
        heads.append(-1)

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        while store._queue._landed is None:
            await checkpoint()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await checkpoint()
        other_process.execute("ROLLBACK")
    assert heads == [1]
    assert await store.head_seq(run) == 1


async def test_a_task_that_asyncio_cancels_waits_for_its_commit(
    store: SqliteStore, other_process: apsw.Connection
) -> None:
    run = RunId.random()
    other_process.execute("BEGIN IMMEDIATE")
    task = asyncio.ensure_future(store.append(run, 0, stream(run, 1)))
    while store._queue._landed is None:
        await checkpoint()
    for _ in range(3):
        task.cancel()
        await checkpoint()
        assert not task.done()
    other_process.execute("ROLLBACK")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.head_seq(run) == 1


async def test_closing_while_a_commit_is_under_way_finishes_it(
    path: Path, store: SqliteStore
) -> None:
    runs = [RunId.random() for _ in range(20)]
    done: list[int] = []

    async def write(run: RunId) -> None:
        try:
            done.append(await store.append(run, 0, stream(run, 1)))
        except StorageFailure as failure:
            done.append(0 if failure.info.code == "store_unavailable" else -1)

    async with anyio.create_task_group() as group:
        for run in runs:
            group.start_soon(write, run)
        while store._queue._landed is None:
            await checkpoint()
        group.start_soon(write, RunId.random())
        while not store._queue._waiting:
            await checkpoint()
        store.close()
    assert sorted(done) == [0, *[1] * 20]
    async with open_sqlite_store(path) as again:
        assert len(await again.list_runs()) == 20


async def test_without_threads_the_loop_commits(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(*_: Any) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", no_thread)
    runs = [RunId.random() for _ in range(30)]
    async with anyio.create_task_group() as group:
        for run in runs:
            group.start_soon(store.append, run, 0, stream(run, 1))
    assert len(await store.list_runs()) == 30


# A bad disk


async def test_a_failed_commit_leaves_nothing_and_the_next_one_works(store: SqliteStore) -> None:
    run = RunId.random()
    await store.append(run, 0, stream(run, 2))
    connection = store._writer.connection
    assert connection is not None
    connection.pragma("max_page_count", connection.pragma("page_count") + 2)
    artifact = store.stage(ArtifactKind.Output, b"x" * 60_000)
    with pytest.raises(StorageFailure) as failure:
        await store.append(run, 2, [said(run, 3, payload="y" * 60_000)])
    assert failure.value.info.code == "store_full"
    assert await store.read_range(run, 1) == stream(run, 2)
    # The limit was that connection's own; the store has opened a new one.
    assert store._writer.connection is not connection
    assert await store.append(run, 2, [ended(run, 3)]) == 3
    assert await store.get(artifact) == b"x" * 60_000


async def test_one_failure_of_a_shared_commit_is_told_to_all_of_it(store: SqliteStore) -> None:
    runs = [RunId.random() for _ in range(20)]
    connection = store._writer.connection
    assert connection is not None
    connection.pragma("max_page_count", connection.pragma("page_count") + 2)
    codes: list[str] = []

    async def write(run: RunId) -> None:
        try:
            await store.append(run, 0, [said(run, 1, payload="y" * 60_000)])
        except StorageFailure as failure:
            codes.append(failure.info.code)

    # One goes alone first; here all shall wait together.
    store._queue._last = "another"
    async with anyio.create_task_group() as group:
        for run in runs:
            group.start_soon(write, run)
    assert codes == ["store_full"] * 20
    assert await store.list_runs() == []


FULL_DISK = """
    import asyncio, json, os
    from pathlib import Path
    from mfm_ops.machine.artifacts import ArtifactKind
    from mfm_ops.machine.errors import StorageFailure
    from mfm_ops.machine.ids import RunId
    from mfm_ops.storage.sqlite import open_sqlite_store
    from tests.contracts.event_store_suite import said

    async def main():
        disk, run, seq, codes = Path("/disk"), RunId.random(), 0, []
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(400_000))
        async with open_sqlite_store(disk / "store") as store:
            try:
                while True:
                    seq = await store.append(run, seq, [said(run, seq + 1, payload="x" * 20_000)])
            except StorageFailure as failure:
                codes.append(failure.info.code)
            try:
                await store.put(ArtifactKind.Output, bytes(1_000_000))
            except StorageFailure as failure:
                codes.append(failure.info.code)
            assert len(await store.read_range(run, 1)) == seq
            ballast.unlink()
            assert await store.append(run, seq, [said(run, seq + 1)]) == seq + 1
            left = list(Path("/disk/store.d/tmp").iterdir())
        async with open_sqlite_store(disk / "store") as store:
            assert len(await store.read_range(run, 1)) == seq + 1
        print(json.dumps([codes, len(left)]))

    asyncio.run(main())
"""


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room() -> None:
    disk = ["bwrap", "--dev-bind", "/", "/", "--size", "2000000", "--tmpfs", "/disk"]
    assert python(FULL_DISK, *disk, "--die-with-parent").split("\n")[0] == (
        '[["store_full", "store_full"], 0]'
    )


async def test_a_limit_on_file_sizes_is_a_full_disk(store: SqliteStore) -> None:
    await store.put(ArtifactKind.Output, b"first")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageFailure) as failure:
            await store.put(ArtifactKind.Output, LARGE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert failure.value.info.code == "store_full"


async def test_what_the_system_calls_no_room_is_a_full_disk_to_appends_too(
    store: SqliteStore,
) -> None:
    """A used-up quota and a limit on file sizes are failed writes to SQLite."""
    run = RunId.random()
    await store.append(run, 0, stream(run, 3))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for _ in range(3):
            store.stage(ArtifactKind.Output, os.urandom(50_000))
        with pytest.raises(StorageFailure) as failure:
            await store.append(run, 3, [ended(run, 4)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert failure.value.info.code == "store_full"
    assert await store.append(run, 3, [ended(run, 4)]) == 4


class _FailingFile(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], disk: "_FailingDisk") -> None:
        super().__init__("unix", name, flags)
        self._disk = disk

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        if self._disk.failing:
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
        super().xSync(flags)


class _FailingDisk(apsw.VFS):
    """A disk whose syncs fail on demand."""

    failing = False

    def __init__(self) -> None:
        super().__init__("failing", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> _FailingFile:  # noqa: N802 - SQLite's name
        return _FailingFile(name, flags, self)


async def test_after_a_failed_sync_the_file_is_opened_anew(path: Path) -> None:
    disk = _FailingDisk()
    try:
        run = RunId.random()
        async with open_sqlite_store(path) as store:
            await store.append(run, 0, [started(run)])
            before = store._writer.connection
            disk.failing = True
            with pytest.raises(StorageFailure) as failure:
                await store.append(run, 1, [ended(run, 2)])
            assert failure.value.info.code == "store_io_error"
            assert await store.head_seq(run) == 1
            assert store._writer.connection is not before
            disk.failing = False
            assert await store.append(run, 1, [ended(run, 2)]) == 2
    finally:
        disk.unregister()


# Stores on one file


async def test_close_keeps_what_was_staged(path: Path) -> None:
    async with open_sqlite_store(path) as store:
        artifact = store.stage(ArtifactKind.Manifest, b"staged")
    async with open_sqlite_store(path) as store:
        assert await store.get(artifact) == b"staged"
        assert await store.artifact_kind(artifact) == ArtifactKind.Manifest


async def test_staged_artifacts_are_seen_by_others_with_the_next_append(path: Path) -> None:
    run = RunId.random()
    async with open_sqlite_store(path) as one, open_sqlite_store(path) as other:
        artifact = one.stage(ArtifactKind.Output, b"staged")
        assert not await other.exists(artifact)
        await one.append(run, 0, stream(run, 1))
        assert await other.get(artifact) == b"staged"


async def test_a_refused_append_keeps_what_is_staged_for_the_next(path: Path) -> None:
    run = RunId.random()
    async with open_sqlite_store(path) as one, open_sqlite_store(path) as other:
        artifact = one.stage(ArtifactKind.Output, b"staged")
        with pytest.raises(StorageFailure):
            await one.append(run, 3, [said(run, 4)])
        assert await one.get(artifact) == b"staged"
        assert one.commits == 0
        await one.append(run, 0, stream(run, 1))
        assert await other.get(artifact) == b"staged"


async def test_sees_what_another_store_appended(path: Path) -> None:
    run = RunId.random()
    async with open_sqlite_store(path) as one, open_sqlite_store(path) as other:
        await one.append(run, 0, stream(run, 2))
        assert await other.append(run, 2, [said(run, 3)]) == 3
        with pytest.raises(StorageFailure) as failure:
            await one.append(run, 2, [ended(run, 3)])
        assert failure.value.info.details["head_seq"] == 3
        assert await one.append(run, 3, [ended(run, 4)]) == 4
        assert await other.head(run) == await one.head(run)
