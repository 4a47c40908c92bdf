"""What is stored in SQLite stays as it is, and where it does not, that is found and named."""
# ruff: noqa: ASYNC240 - a test's own look at its files may block

import errno
import fcntl
import os
import random
import shutil
import sqlite3
import stat
from hashlib import sha256
from pathlib import Path

import apsw
import pytest

from mfm_ops.app.rules import FoldRules
from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.storage.sqlite import open_sqlite_store
from mfm_ops.storage.verify import verify_store
from tests.contracts.event_store_suite import stream
from tests.integration.sqlite_stores import LARGE, change, fill

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


# Constraints


@pytest.mark.parametrize("seq", [5, 7, 0])
async def test_the_table_itself_refuses_what_does_not_go_on_from_the_head(
    path: Path, seq: int
) -> None:
    await fill(path)
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA foreign_keys = ON")
    insert = "INSERT INTO events (run, seq, body, running_hash) VALUES (1, ?, '{}', ?)"
    with pytest.raises(apsw.ConstraintError):
        connection.execute(insert, (seq, b"h" * 32))
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET body = '{}' WHERE seq = 2",
        "UPDATE artifacts SET kind = '\"Output\"'",
        "UPDATE runs SET run_id = 'x'",
        "DELETE FROM events WHERE seq = 5",
        "DELETE FROM artifacts",
        "DELETE FROM runs",
    ],
)
async def test_nothing_that_is_stored_can_be_changed(path: Path, statement: str) -> None:
    await fill(path)
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="never changed"):
        connection.execute(statement)
    connection.close()


# Damage


@pytest.mark.parametrize(
    ("statement", "seq", "reason"),
    [
        ("UPDATE events SET body = replace(body, ':3', ':4') WHERE seq = 3", 3, "running_hash"),
        ("UPDATE events SET body = body || ' ' WHERE seq = 5", 5, "running_hash"),
        ("UPDATE events SET running_hash = zeroblob(32) WHERE seq = 2", 2, "running_hash"),
        ("DELETE FROM events WHERE seq = 1", 1, "missing"),
        ("DELETE FROM events WHERE seq = 4", 4, "missing"),
    ],
)
async def test_a_changed_event_is_named_and_not_used(
    path: Path, statement: str, seq: int, reason: str
) -> None:
    run = await fill(path)
    change(path, "PRAGMA foreign_keys = OFF", statement)
    async with open_sqlite_store(path) as store:
        for read in (store.read_range(run, 1), store.read_raw(run, seq, seq)):
            with pytest.raises(StorageFailure) as failure:
                await read
            assert failure.value.error.variant == "Corruption"
            assert failure.value.info.details == {"run_id": run, "seq": seq, "reason": reason}


async def test_events_whose_hashes_were_made_anew_must_still_be_events(path: Path) -> None:
    run = await fill(path, 1)
    async with open_sqlite_store(path) as store:
        (body,) = await store.read_raw(run, 1)
    forged = {
        body + b" ": "json_not_canonical",
        b"[]": "envelope",
        body.replace(b'"seq":1', b'"seq":2'): "envelope",
        body.replace(run.encode(), RunId.random().encode()): "envelope",
        body.replace(b'"op_id":"demo"', b'"op_id":"Demo"'): "content",
        body.replace(b'"ts_millis":7', b'"ts_millis":1.5'): "json_float",
    }
    for text, reason in forged.items():
        change(
            path,
            f"UPDATE events SET body = '{text.decode()}', "
            f"running_hash = x'{sha256(text).hexdigest()}'",
        )
        async with open_sqlite_store(path) as store:
            with pytest.raises(StorageFailure) as failure:
                await store.read_range(run, 1)
            assert failure.value.info.code == "event_corrupt"
            assert failure.value.info.details["reason"] == reason


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"RunStarted"', '"RunPaused"'),
        ('"op_id":"demo"', '"op_id":"demo","region":"eu"'),
        ('"seq":1', '"seq":1,"shard":3'),
    ],
)
async def test_what_a_newer_version_wrote_is_unsupported_not_corrupt(
    path: Path, old: str, new: str
) -> None:
    run = await fill(path, 1)
    async with open_sqlite_store(path) as store:
        (body,) = await store.read_raw(run, 1)
    text = body.decode().replace(old, new)
    digest = sha256(text.encode()).hexdigest()
    change(path, f"UPDATE events SET body = '{text}', running_hash = x'{digest}'")
    async with open_sqlite_store(path) as store:
        with pytest.raises(StorageFailure) as failure:
            await store.read_range(run, 1)
        assert failure.value.info.code == "unsupported_format"
        assert failure.value.info.details == {"seq": 1}
        assert await store.read_raw(run, 1) == [text.encode()]


async def test_one_damaged_run_does_not_hide_the_others_from_a_list(path: Path) -> None:
    run = await fill(path)
    change(path, "UPDATE events SET body = 'x' WHERE seq = 5")
    async with open_sqlite_store(path) as store:
        other = RunId.random()
        await store.append(other, 0, stream(other, 1))
        good, bad = await store.list_runs()
    assert (good.run_id, good.last_event) == (other, "RunStarted")
    assert (bad.run_id, bad.last_event, bad.head_seq) == (run, "event_corrupt", 5)


async def test_a_changed_artifact_is_named_and_not_used(path: Path) -> None:
    await fill(path)
    change(path, "UPDATE artifacts SET body = x'00', size = 1 WHERE size = 5")
    (large,) = (found for found in Path(f"{path}.d").glob("??/*"))
    large.write_bytes(LARGE[:-1] + b"?")
    async with open_sqlite_store(path) as store:
        for artifact in await store.find_artifacts("", limit=9):
            with pytest.raises(StorageFailure) as failure:
                await store.get(artifact)
            assert failure.value.info.code == "artifact_corrupt"
            assert failure.value.info.details == {"artifact_id": artifact}


async def test_a_lost_file_is_named_and_comes_back_with_the_next_put(path: Path) -> None:
    await fill(path)
    large = ArtifactId(sha256(LARGE).hexdigest())
    for found in Path(f"{path}.d").glob("??/*"):
        found.unlink()
    async with open_sqlite_store(path) as store:
        assert not await store.exists(large)
        with pytest.raises(StorageFailure) as failure:
            await store.get(large)
        assert failure.value.info.code == "artifact_corrupt"
        await store.put(ArtifactKind.Output, LARGE)
        assert await store.get(large) == LARGE


async def test_a_flipped_byte_anywhere_is_named_or_without_effect(
    path: Path, long_form: bool
) -> None:
    run = await fill(path, 60)
    whole = path.read_bytes()
    artifacts = [ArtifactId(sha256(data).hexdigest()) for data in (b"small", LARGE)]
    choose = random.Random(7)
    damaged = path.with_name("damaged")
    shutil.copytree(f"{path}.d", f"{damaged}.d")
    for _ in range(3_000 if long_form else 150):
        at = choose.randrange(len(whole))
        flipped = bytes([whole[at] ^ 1 << choose.randrange(8)])
        damaged.write_bytes(whole[:at] + flipped + whole[at + 1 :])
        try:
            async with open_sqlite_store(damaged) as store:
                events = await store.read_range(run, 1)
                # A tail that is cut off looks like an earlier state, and nothing else does.
                assert events == stream(run, 60)[: len(events)]
                for artifact, data in zip(artifacts, (b"small", LARGE), strict=True):
                    assert await store.get(artifact) == data
                await store.list_runs()
        except StorageFailure as failure:
            assert failure.info.code in {  # noqa: PT017 - either outcome is right
                "artifact_corrupt",
                "artifact_not_found",
                "event_corrupt",
                "store_corrupt",
                "store_not_mfm",
                "store_unavailable",
                "unsupported_format",
            }
        for suffix in ("", "-wal", "-shm"):
            Path(f"{damaged}{suffix}").unlink(missing_ok=True)


# Large artifacts


async def test_a_large_artifact_is_a_private_file_of_its_own(path: Path) -> None:
    await fill(path)
    digest = sha256(LARGE).hexdigest()
    found = Path(f"{path}.d") / digest[:2] / digest
    assert found.read_bytes() == LARGE
    assert stat.S_IMODE(found.stat().st_mode) == 0o600
    assert list(Path(f"{path}.d/tmp").iterdir()) == []


async def test_a_file_without_its_row_is_harmless(path: Path) -> None:
    digest = ArtifactId(sha256(LARGE).hexdigest())
    found = Path(f"{path}.d") / digest[:2] / digest
    found.parent.mkdir(parents=True)
    found.write_bytes(b"half a")
    async with open_sqlite_store(path) as store:
        assert not await store.exists(digest)
        await store.put(ArtifactKind.Output, LARGE)
        assert await store.get(digest) == LARGE


ABANDONED, IN_USE = "a" * 32, "b" * 32


async def test_only_abandoned_temporary_files_are_swept(path: Path) -> None:
    await fill(path)
    temporary = Path(f"{path}.d/tmp")
    (temporary / ABANDONED).write_bytes(b"x")
    (temporary / "by_hand").write_bytes(b"x")
    os.mkfifo(temporary / ("c" * 32))
    with (temporary / IN_USE).open("wb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        open_sqlite_store(path).close()
        assert sorted(entry.name for entry in temporary.iterdir()) == [IN_USE, "by_hand"]


async def test_nothing_is_swept_behind_a_link(path: Path) -> None:
    """A store may come from somebody else, and its directory lead to what is not the store's."""
    await fill(path)
    temporary, elsewhere = Path(f"{path}.d/tmp"), path.with_name("elsewhere")
    temporary.rmdir()
    elsewhere.mkdir()
    (elsewhere / ABANDONED).write_bytes(b"x")
    temporary.symlink_to(elsewhere)
    open_sqlite_store(path).close()
    assert (elsewhere / ABANDONED).exists()


@pytest.mark.parametrize("what", ["pipe", "endless", "directory", "huge"])
async def test_what_is_no_artifact_is_named_and_not_read(path: Path, what: str) -> None:
    """A pipe would be waited for, and what has no end would fill the memory."""
    await fill(path)
    digest = ArtifactId(sha256(LARGE).hexdigest())
    found = Path(f"{path}.d") / digest[:2] / digest
    found.unlink()
    match what:
        case "pipe":
            os.mkfifo(found)
        case "endless":
            found.symlink_to("/dev/zero")
        case "directory":
            found.mkdir()
        case "huge":
            with found.open("wb") as file:
                file.truncate(2**43)
    async with open_sqlite_store(path, read_only=True) as store:
        with pytest.raises(StorageFailure) as failure:
            await store.get(digest)
        assert failure.value.info.code == "artifact_corrupt"
        with store.audit() as audit:
            report = await verify_store(audit, FoldRules)
    named = {finding.reason for finding in report.findings if finding.artifact_id == digest}
    assert named == {"bytes" if what == "huge" else "file_missing"}


async def test_what_is_written_is_the_stores_owners(path: Path) -> None:
    # Only root can give files away: for anybody else the owner is who writes.
    owner = (65534, 65534) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    open_sqlite_store(path).close()
    os.chown(path, *owner)
    await fill(path)
    made = list(Path(f"{path}.d").rglob("*"))
    assert len(made) == 3
    assert {(each.stat().st_uid, each.stat().st_gid) for each in made} == {owner}


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP])
async def test_where_owner_and_mode_cannot_be_given_the_artifact_is_stored(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """FAT has no modes; to a container's root, owners of the host may be nobody."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    open_sqlite_store(path).close()
    path.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    for call in ("fchmod", "fchown"):
        monkeypatch.setattr(os, call, refuse)
    await fill(path)
    made = list(Path(f"{path}.d").rglob("*"))
    assert len(made) == 3
    assert not any(each.stat().st_mode & 0o077 for each in made)


async def test_large_artifacts_are_as_private_as_their_store(path: Path) -> None:
    path.touch()
    path.chmod(0o640)
    await fill(path)
    made = list(Path(f"{path}.d").rglob("*"))
    modes = {each.is_dir(): stat.S_IMODE(each.stat().st_mode) for each in made}
    assert modes == {True: 0o750, False: 0o640}


@pytest.mark.parametrize("name", [".d", ".d/tmp"])
async def test_a_link_in_the_way_of_large_artifacts_is_no_fault_of_the_disk(
    path: Path, name: str
) -> None:
    in_the_way = Path(f"{path}{name}")
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.symlink_to("nowhere")
    async with open_sqlite_store(path) as store:
        with pytest.raises(StorageFailure) as failure:
            await store.put(ArtifactKind.Output, LARGE)
    assert failure.value.info.code == "store_unavailable"
    assert failure.value.info.details == {"path": str(path), "reason": "EEXIST"}
