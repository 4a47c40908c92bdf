"""The files of a SQLite store: whose they are, where they lie, which format they have."""
# ruff: noqa: ASYNC240 - a test's own look at its files may block

import shutil
import signal
import stat
import subprocess
import threading
from pathlib import Path

import apsw
import pytest

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import canonical_json_bytes
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import RunId
from mfm_ops.storage import sqlite_open
from mfm_ops.storage.sqlite import open_sqlite_store
from mfm_ops.storage.sqlite_schema import APPLICATION_ID, FORMAT
from mfm_ops.storage.stream import chain
from tests.contracts.event_store_suite import ended, said, started, stream
from tests.integration.sqlite_stores import LARGE, change, code_of, fill, python

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


# Opening


async def test_a_new_store_and_its_directories_are_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "store.sqlite"
    await fill(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for directory in (path.parent, path.parent.parent, Path(f"{path}.d")):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("read_only", [True, False])
def test_a_missing_store_is_made_only_on_request(path: Path, read_only: bool) -> None:
    code = code_of(lambda: open_sqlite_store(path, create=False, read_only=read_only))
    assert code == "store_unavailable"
    assert list(path.parent.iterdir()) == []


def test_a_directory_is_no_store(tmp_path: Path) -> None:
    assert code_of(lambda: open_sqlite_store(tmp_path)) == "store_unavailable"


def test_a_path_through_a_file_is_unavailable(path: Path) -> None:
    path.write_bytes(b"")
    assert code_of(lambda: open_sqlite_store(path / "store")) == "store_unavailable"


def test_symbolic_links_in_a_circle_are_unavailable(path: Path) -> None:
    path.symlink_to(path)
    assert code_of(lambda: open_sqlite_store(path)) == "store_unavailable"


@pytest.mark.parametrize("content", [b"not a database " * 100, b"\x00" * 5000])
def test_a_file_of_another_kind_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert code_of(lambda: open_sqlite_store(path)) == "store_not_mfm"
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("mark", ["", "PRAGMA application_id = 77", "PRAGMA user_version = 1"])
def test_another_applications_database_is_refused_and_kept(path: Path, mark: str) -> None:
    with apsw.Connection(str(path)) as connection:
        connection.execute("CREATE TABLE runs (run)")
        connection.execute(mark)
    connection.close()
    before = path.read_bytes()
    assert code_of(lambda: open_sqlite_store(path)) == "store_not_mfm"
    assert path.read_bytes() == before


@pytest.mark.parametrize("read_only", [True, False])
def test_the_log_of_another_applications_database_is_not_written_into_it(
    path: Path, read_only: bool
) -> None:
    living = path.with_name("living.sqlite")
    connection = apsw.Connection(str(living))
    connection.pragma("journal_mode", "wal")
    connection.execute("CREATE TABLE things (thing)")
    # As a killed process leaves it.
    for suffix in ("", "-wal"):
        shutil.copy(f"{living}{suffix}", f"{path}{suffix}")
    connection.close()
    before = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    assert code_of(lambda: open_sqlite_store(path, read_only=read_only)) == "store_not_mfm"
    assert (path.read_bytes(), Path(f"{path}-wal").read_bytes()) == before


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.write_bytes(b"")
    assert code_of(lambda: open_sqlite_store(path, read_only=True)) == "store_not_mfm"
    open_sqlite_store(path).close()
    open_sqlite_store(path, read_only=True).close()


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("beside", ["-wal", ".d"])
async def test_a_store_that_was_emptied_is_not_begun_anew(
    path: Path, beside: str, read_only: bool
) -> None:
    store = open_sqlite_store(path)
    await store.put(ArtifactKind.Output, b"x" * 2**20)
    log = Path(f"{path}-wal").read_bytes()
    store.close()
    path.write_bytes(b"")
    if beside == "-wal":
        shutil.rmtree(f"{path}.d")
        Path(f"{path}-wal").write_bytes(log)
    with pytest.raises(StorageFailure) as failure:
        open_sqlite_store(path, read_only=read_only)
    details = {"path": str(path), "reason": "emptied"}
    assert (failure.value.info.code, failure.value.info.details) == ("store_corrupt", details)
    assert path.read_bytes() == b""
    if beside == "-wal":
        # SQLite would have deleted it.
        assert Path(f"{path}-wal").read_bytes() == log


async def test_a_newer_format_is_refused_and_kept(path: Path) -> None:
    await fill(path)
    change(path, f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(StorageFailure) as failure:
        open_sqlite_store(path)
    assert failure.value.info.code == "unsupported_format"
    assert failure.value.info.details == {"found": FORMAT + 1, "supported": FORMAT}


async def test_the_file_says_what_it_is(path: Path) -> None:
    await fill(path)
    with apsw.Connection(str(path)) as connection:
        assert connection.pragma("application_id") == APPLICATION_ID
        assert connection.pragma("user_version") == FORMAT
        assert connection.pragma("journal_mode") == "wal"
    connection.close()


async def test_a_link_to_a_store_uses_the_stores_own_directory(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    async with open_sqlite_store(link) as store:
        artifact = await store.put(ArtifactKind.Output, LARGE)
    async with open_sqlite_store(path) as store:
        assert await store.get(artifact) == LARGE
    assert not Path(f"{link}.d").exists()


def test_opening_loads_neither_asyncio_nor_anyio(path: Path) -> None:
    script = f"""
        import sys
        from mfm_ops.storage.sqlite import open_sqlite_store
        open_sqlite_store({str(path)!r}).close()
        print(sorted({{"asyncio", "anyio", "concurrent.futures"}} & set(sys.modules)))
    """
    assert python(script).strip() == "[]"


def test_a_store_tells_its_place(path: Path) -> None:
    store = open_sqlite_store(str(path))
    assert (store.path, store.read_only, store.warnings) == (path.resolve(), False, ())
    store.close()


# Places


def mounted(path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the table of mounts say that the store lies on a file system of this kind."""
    table = path.with_name("mountinfo")
    point = str(path.parent).replace(" ", "\\040")
    table.write_text(
        "22 1 8:1 / / rw shared:1 - ext4 /dev/root rw\n"
        f"97 22 0:55 / {point} rw shared:2 - {kind} server:/export rw\n"
    )
    monkeypatch.setattr(sqlite_open, "_MOUNTS", table)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
async def test_a_network_file_system_is_refused_unless_allowed(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(path, kind, monkeypatch)
    with pytest.raises(StorageFailure) as failure:
        open_sqlite_store(path)
    assert failure.value.info.code == "store_unavailable"
    assert failure.value.info.details["reason"] == f"network_file_system:{kind}"
    assert not path.exists()
    with_warning = open_sqlite_store(path, allow_network=True)
    assert kind in with_warning.warnings[0]
    with_warning.close()
    to_read = open_sqlite_store(path, read_only=True)
    assert kind in to_read.warnings[0]
    to_read.close()


@pytest.mark.parametrize(("kind", "count"), [("9p", 1), ("virtiofs", 1), ("ext4", 0)])
async def test_a_file_system_shared_with_a_host_is_warned_of(
    path: Path, kind: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(path, kind, monkeypatch)
    store = open_sqlite_store(path)
    assert len(store.warnings) == count
    store.close()


async def test_a_store_opened_to_read_refuses_writes(path: Path) -> None:
    run = await fill(path)
    async with open_sqlite_store(path, read_only=True) as store:
        assert await store.read_range(run, 1) == stream(run, 5)
        assert len(await store.find_artifacts("", limit=9)) == 2
        for attempt in (
            store.append(run, 5, [ended(run, 6)]),
            store.put(ArtifactKind.Output, b"new"),
        ):
            with pytest.raises(StorageFailure) as failure:
                await attempt
            assert failure.value.info.code == "store_read_only"
        with pytest.raises(StorageFailure):
            store.stage(ArtifactKind.Output, b"new")


def in_read_only_mount(directory: Path) -> list[str]:
    root = ["bwrap", "--dev-bind", "/", "/", "--ro-bind", str(directory), str(directory)]
    return [*root, "--die-with-parent"]


READ_ALL = """
    import asyncio, sys
    from mfm_ops.machine.errors import StorageFailure
    from mfm_ops.storage.sqlite import open_sqlite_store

    async def main():
        try:
            async with open_sqlite_store({path!r}, read_only={read_only}) as store:
                for line in await store.list_runs():
                    print(line.run_id, len(await store.read_range(line.run_id, 1)))
                for found in await store.find_artifacts("", limit=9):
                    await store.get(found)
        except StorageFailure as failure:
            print(failure.info.code, failure.info.details.get("reason"))

    asyncio.run(main())
"""


async def test_a_store_on_a_read_only_mount_can_be_read(path: Path) -> None:
    run = await fill(path)
    script = READ_ALL.format(path=str(path), read_only=True)
    assert python(script, *in_read_only_mount(path.parent)).split() == [run, "5"]
    script = READ_ALL.format(path=str(path), read_only=False)
    assert python(script, *in_read_only_mount(path.parent)).split()[0] == "store_read_only"


async def test_a_log_on_a_read_only_mount_is_not_ignored(path: Path) -> None:
    run = await fill(path)
    store = open_sqlite_store(path)
    await store.append(run, 5, [ended(run, 6)])
    copy = path.parent / "copy" / path.name
    copy.parent.mkdir()
    # As a killed process leaves it: the last event is in the log only.
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    store.close()
    script = READ_ALL.format(path=str(copy), read_only=True)
    answer = python(script, *in_read_only_mount(copy.parent)).split()
    assert answer == ["store_unavailable", "log_not_readable"]
    assert python(script).split()[:2] == [run, "6"]


# Older formats


def make_format_0(path: Path, runs: list[RunId]) -> None:
    """A store from before events had running hashes."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    for statement in (
        "CREATE TABLE runs (run INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE) STRICT",
        """CREATE TABLE events (event INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs,
           seq INTEGER NOT NULL, body TEXT NOT NULL, UNIQUE (run, seq)) STRICT""",
        """CREATE TABLE artifacts (artifact INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE,
           kind TEXT NOT NULL, size INTEGER NOT NULL, body BLOB) STRICT""",
        f"PRAGMA application_id = {APPLICATION_ID}",
    ):
        connection.execute(statement)
    with connection:
        for run, run_id in enumerate(runs, 1):
            connection.execute("INSERT INTO runs VALUES (?, ?)", (run, run_id))
        for seq in range(1, 201):
            for run, run_id in enumerate(runs, 1):
                event = started(run_id) if seq == 1 else said(run_id, seq, payload=seq)
                body = sqlite_body(event.model_dump(mode="json"))
                connection.execute(
                    "INSERT INTO events (run, seq, body) VALUES (?, ?, ?)", (run, seq, body)
                )
    connection.close()


def sqlite_body(value: object) -> str:
    return canonical_json_bytes(value).decode()


async def check_migrated(path: Path, runs: list[RunId]) -> None:
    async with open_sqlite_store(path) as store:
        for run in runs:
            bodies = await store.read_raw(run, 1)
            assert len(bodies) == 200
            assert (await store.head(run)).running_hash == chain(b"", bodies)[-1].hex()
            assert await store.append(run, 200, [ended(run, 201)]) == 201
        assert [line.run_id for line in await store.list_runs()] == runs[::-1]
    connection = apsw.Connection(str(path))
    with pytest.raises(apsw.ConstraintError):
        connection.execute("DELETE FROM events")
    connection.close()


async def test_an_older_format_is_migrated(path: Path) -> None:
    runs = [RunId.random() for _ in range(3)]
    make_format_0(path, runs)
    assert code_of(lambda: open_sqlite_store(path, read_only=True)) == "store_read_only"
    await check_migrated(path, runs)


async def test_a_migration_that_is_killed_is_done_again_or_was_done(path: Path) -> None:
    runs = [RunId.random() for _ in range(3)]
    make_format_0(path, runs)
    for steps in (1_000, 5_000, 15_000, 30_000):
        script = f"""
            import apsw, os, signal
            from mfm_ops.storage.sqlite import open_sqlite_store
            kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
            apsw.connection_hooks.append(lambda new: new.set_progress_handler(kill, {steps}))
            open_sqlite_store({str(path)!r})
            kill()
        """
        with pytest.raises(subprocess.CalledProcessError) as ended_by:
            python(script)
        assert ended_by.value.returncode == -signal.SIGKILL
        connection = apsw.Connection(str(path))
        columns = [row[1] for row in connection.execute("PRAGMA table_info(events)")]
        version = connection.pragma("user_version")
        connection.close()
        assert ("running_hash" in columns) == (version == FORMAT)
    await check_migrated(path, runs)


def test_readers_that_race_the_maker_of_a_store_find_it_whole_or_absent(tmp_path: Path) -> None:
    """An empty or half-seen file must never be taken for somebody else's."""
    found: list[str] = []

    def read(path: Path, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                open_sqlite_store(path, create=False, read_only=True).close()
            except StorageFailure as failure:
                found.append(str(failure.info.code))

    for number in range(10):
        path, stop = tmp_path / f"{number}.sqlite", threading.Event()
        readers = [threading.Thread(target=read, args=(path, stop)) for _ in range(2)]
        for reader in readers:
            reader.start()
        open_sqlite_store(path).close()
        stop.set()
        for reader in readers:
            reader.join()
    assert set(found) <= {"store_unavailable"}
