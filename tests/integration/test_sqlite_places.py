"""Where a store may be made, and what is left where it may not be: names, files, full disks."""
# ruff: noqa: ASYNC240 - a test's own look at its files may block

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.storage import sqlite_create
from mfm_ops.storage.sqlite import open_sqlite_store
from tests.contracts.event_store_suite import ended
from tests.integration.sqlite_stores import fill, python

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


def refusal(action: Callable[[], object]) -> tuple[str, object]:
    with pytest.raises(StorageFailure) as failure:
        action()
    details = failure.value.info.details
    assert isinstance(details, dict)
    return str(failure.value.info.code), details.get("reason")


# Names


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a?mode=memory", b"%41#b", b"new\nline", b" "])
async def test_a_name_may_hold_any_bytes(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    run = await fill(path)
    async with open_sqlite_store(path, read_only=True) as store:
        assert [line.run_id for line in await store.list_runs()] == [run]
    assert {os.fsencode(entry.name) for entry in tmp_path.iterdir()} == {
        name + suffix for suffix in (b"", b".d", b"-wal", b"-shm")
    }


@pytest.mark.parametrize("total", [0, 505])
def test_a_name_that_leaves_no_room_for_others_is_refused_before_a_file_is_made(
    tmp_path: Path, total: int
) -> None:
    path = tmp_path / ("f" * 252)
    if total:
        path = tmp_path
        while len(str(path)) < total - 120:
            path /= "d" * 100
        path /= "f" * (total - len(str(path)) - 1)
    assert refusal(lambda: open_sqlite_store(path)) == ("store_unavailable", "ENAMETOOLONG")
    assert list(tmp_path.iterdir()) == []


# Kinds of file


@pytest.mark.parametrize("read_only", [True, False])
def test_what_is_no_file_is_refused(path: Path, read_only: bool) -> None:
    """SQLite takes a disk for an empty file, begins a database on it, and waits for a pipe."""
    os.mkfifo(path)
    for place in (path, Path("/dev/null")):
        found = refusal(lambda place=place: open_sqlite_store(place, read_only=read_only))  # type: ignore[misc]
        assert found == ("store_unavailable", "not_a_file")


async def test_a_log_whose_file_is_gone_is_not_begun_anew(path: Path) -> None:
    store = open_sqlite_store(path)
    await store.put(ArtifactKind.Output, b"x")
    log = Path(f"{path}-wal").read_bytes()
    store.close()
    path.unlink()
    Path(f"{path}-wal").write_bytes(log)
    assert refusal(lambda: open_sqlite_store(path)) == ("store_corrupt", "emptied")
    assert Path(f"{path}-wal").read_bytes() == log
    assert not path.exists()


async def test_a_directory_whose_store_is_gone_does_no_harm_to_a_new_one(path: Path) -> None:
    await fill(path)
    path.unlink()
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    await fill(path)


# Making


KILLED = """
    import apsw, os, signal
    from mfm_ops.storage.sqlite import open_sqlite_store
    kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    if {steps} > 0:
        apsw.connection_hooks.append(lambda new: new.set_progress_handler(kill, {steps}))
    elif {steps} == 0:
        os.link = kill
    else:
        link = os.link
        os.link = lambda *given, **named: (link(*given, **named), kill())
    open_sqlite_store({path!r})
    kill()
"""


@pytest.mark.parametrize("steps", [1, 20, 100, 300, 0, -1])
def test_who_is_killed_while_making_a_store_leaves_a_whole_one_or_none(
    path: Path, steps: int
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as ended_by:
        python(KILLED.format(path=str(path), steps=steps))
    assert ended_by.value.returncode == -signal.SIGKILL
    assert (steps == -1) <= path.exists()
    if path.exists():
        open_sqlite_store(path, read_only=True).close()
    assert {entry.name for entry in path.parent.iterdir()} <= {
        f"{path.name}{suffix}" for suffix in ("", "-wal", "-shm")
    }


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
async def test_where_files_need_names_a_store_is_filled_in_its_place(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(number, "hard links are not for everybody")

    monkeypatch.setattr(os, "link", refuse)
    run = await fill(path)
    async with open_sqlite_store(path, read_only=True) as store:
        assert [line.run_id for line in await store.list_runs()] == [run]


async def test_who_comes_second_takes_the_store_that_is_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, others = await fill(path), path.with_name("other.sqlite")
    path.rename(others)
    image = sqlite_create._image

    def late() -> bytes:
        shutil.copy(others, path)
        return image()

    monkeypatch.setattr(sqlite_create, "_image", late)
    async with open_sqlite_store(path) as store:
        assert [line.run_id for line in await store.list_runs()] == [run]


def test_a_new_store_is_what_sqlite_would_have_made(path: Path) -> None:
    open_sqlite_store(path).close()
    with apsw.Connection(str(path)) as connection:
        assert connection.pragma("integrity_check") == "ok"
        assert connection.pragma("journal_mode") == "wal"
        assert connection.pragma("page_size") == 4096
    connection.close()


# Full disks


FULL = """
    import asyncio, os
    from pathlib import Path
    from mfm_ops.machine.errors import StorageFailure
    from mfm_ops.storage.sqlite import open_sqlite_store
    from tests.integration.sqlite_stores import fill

    def fill_up(path):
        with path.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    async def main():
        path = Path("/disk/store.sqlite")
        run = await fill(path)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        fill_up(Path("/disk/ballast"))
        for place in (path, Path("/disk/new.sqlite")):
            try:
                open_sqlite_store(place)
            except StorageFailure as failure:
                print(failure.info.code)
        store = open_sqlite_store(path, read_only=True)
        print(len(await store.read_range(run, 1)), store.warnings)
        print(sorted(os.listdir("/disk")))

    asyncio.run(main())
"""


def test_on_a_full_disk_a_store_can_be_read_and_none_is_begun() -> None:
    disk = ["bwrap", "--dev-bind", "/", "/", "--size", "2000000", "--tmpfs", "/disk"]
    said = python(FULL, *disk, "--die-with-parent").splitlines()
    assert said[:2] == ["store_full", "store_full"]
    assert said[2].startswith("5 ('the disk is full")
    assert "new.sqlite" not in said[3]


def test_a_full_disk_of_small_blocks_is_refused_before_the_index_is_mapped(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would be ended by SIGBUS: it makes sure of one block in each page."""
    open_sqlite_store(path).close()
    found = os.statvfs(path.parent)
    small = os.statvfs_result((1024, 1024, found.f_blocks, 20, 20, *tuple(found)[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    assert refusal(lambda: open_sqlite_store(path)) == ("store_full", None)
    store = open_sqlite_store(path, read_only=True)
    assert "full" in store.warnings[0]
    store.close()


@pytest.mark.parametrize(
    ("blocks", "flags"), [(0, 0), (1000, os.ST_RDONLY)], ids=["silent", "medium"]
)
async def test_what_tells_of_no_room_and_needs_none_is_no_full_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, flags: int
) -> None:
    """FUSE file systems that tell nothing have no blocks at all, and a medium has none free."""
    run = await fill(path)
    told = os.statvfs_result((512, 512, blocks, 0, 0, 0, 0, 0, flags, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: told)
    async with open_sqlite_store(path) as store:
        await store.append(run, 5, [ended(run, 6)])
    async with open_sqlite_store(path, read_only=True) as store:
        assert not store.warnings


# While it is in use


@pytest.mark.parametrize("replaced", [True, False])
async def test_a_store_that_was_taken_away_takes_no_more_events(path: Path, replaced: bool) -> None:
    """What is written to a removed file is gone with the process, and nobody would know."""
    run = await fill(path)
    kept = path.with_name("kept.sqlite")
    shutil.copy(path, kept)
    store = open_sqlite_store(path)
    path.unlink()
    if replaced:
        kept.rename(path)
    with pytest.raises(StorageFailure) as failure:
        await store.append(run, 5, [ended(run, 6)])
    details = {"path": str(path), "reason": "moved"}
    assert (failure.value.info.code, failure.value.info.details) == ("store_unavailable", details)
    store.close()
    assert path.exists() == replaced
