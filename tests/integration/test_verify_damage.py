"""Verifying a damaged SQLite store names all of the damage, and does not stop at the first."""
# ruff: noqa: ASYNC240 - a test's own look at its files may block

import random
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from mfm_ops.app.rules import FoldRules
from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import RunId
from mfm_ops.storage.findings import Finding, Verified
from mfm_ops.storage.sqlite import open_sqlite_store
from mfm_ops.storage.verify import verify_store
from tests.contracts.transfer_suite import CHILD, a_run
from tests.integration.sqlite_stores import change
from tests.run_streams import RUN

pytestmark = pytest.mark.anyio

LARGE = b"x" * 70_000
LARGE_ID = sha256(LARGE).hexdigest()


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A store with two runs of eight events."""
    path = tmp_path / "store.sqlite"
    async with open_sqlite_store(path) as store:
        await a_run().store_in(store)
        await a_run(CHILD).store_in(store)
    return path


async def verified(path: Path) -> Verified:
    async with open_sqlite_store(path, read_only=True) as store:
        with store.audit() as audit:
            return await verify_store(audit, FoldRules)


async def findings(path: Path) -> list[Finding]:
    report = await verified(path)
    assert report.found == len(report.findings)
    return sorted(report.findings, key=lambda one: (one.code, one.run_id or "", one.seq or 0))


def event(seq: int, reason: str, run_id: RunId = RUN) -> Finding:
    return Finding("event_corrupt", run_id, seq, None, reason)


async def test_every_changed_event_is_named_and_no_other(path: Path) -> None:
    change(
        path,
        "UPDATE events SET body = replace(body, ':8', ':7') WHERE run = 1 AND seq IN (3, 6)",
        "UPDATE events SET running_hash = zeroblob(32) WHERE run = 2 AND seq = 5",
        "UPDATE events SET body = body || ' ' WHERE run = 2 AND seq = 8",
    )
    assert await findings(path) == [
        event(5, "running_hash", CHILD),
        event(8, "running_hash", CHILD),
        event(3, "running_hash"),
        event(6, "running_hash"),
    ]


async def test_a_gap_is_named_once_and_what_follows_is_still_verified(path: Path) -> None:
    change(
        path,
        "PRAGMA foreign_keys = OFF",
        "DELETE FROM events WHERE run = 1 AND seq IN (3, 4)",
        "UPDATE events SET body = replace(body, ':8', ':7') WHERE run = 1 AND seq = 6",
    )
    assert await findings(path) == [event(3, "missing"), event(6, "running_hash")]


async def test_events_that_are_not_canonical_are_named_though_the_hashes_are_right(
    path: Path,
) -> None:
    body = a_run().bodies[0] + b" "
    change(
        path,
        "PRAGMA foreign_keys = OFF",
        "DELETE FROM events WHERE run = 1 AND seq > 1",
        f"UPDATE events SET body = '{body.decode()}', running_hash = x'{sha256(body).hexdigest()}'"
        " WHERE run = 1",
    )
    assert await findings(path) == [event(1, "json_not_canonical")]


async def test_an_event_of_a_newer_version_is_no_corruption(path: Path) -> None:
    body = a_run().bodies[0].replace(b'"ts_millis":7', b'"ts_millis":7,"zone":"x"')
    change(
        path,
        "PRAGMA foreign_keys = OFF",
        "DELETE FROM events WHERE run = 1 AND seq > 1",
        f"UPDATE events SET body = '{body.decode()}', running_hash = x'{sha256(body).hexdigest()}'"
        " WHERE run = 1",
    )
    assert await findings(path) == [Finding("unsupported_format", RUN, 1)]


async def test_a_value_of_another_type_is_named(path: Path) -> None:
    change(path, "UPDATE runs SET run_id = 'nobody' WHERE run = 1")
    report = await verified(path)
    assert Finding("store_corrupt", "nobody", None, None, "run_id") in report.findings
    assert report.runs == 2


async def test_a_run_without_events_is_named(path: Path) -> None:
    change(path, "PRAGMA foreign_keys = OFF", "DELETE FROM events WHERE run = 2")
    assert await findings(path) == [Finding("history_invalid", CHILD, 0, None, "no_events")]


async def test_every_changed_artifact_is_named(path: Path) -> None:
    small = sha256(b"[1]").hexdigest()
    change(
        path,
        f"UPDATE artifacts SET body = x'00', size = 1 WHERE id = x'{small}'",
        f"UPDATE artifacts SET kind = '\"Nonsense\"' WHERE id = x'{sha256(b'{}').hexdigest()}'",
    )
    Path(f"{path}.d", LARGE_ID[:2], LARGE_ID).write_bytes(LARGE[:-1] + b"?")
    assert {(one.artifact_id, one.reason) for one in await findings(path)} == {
        (small, "bytes"),
        (sha256(b"{}").hexdigest(), "kind"),
        (LARGE_ID, "bytes"),
    }


async def test_a_lost_file_is_named(path: Path) -> None:
    Path(f"{path}.d", LARGE_ID[:2], LARGE_ID).unlink()
    assert await findings(path) == [
        Finding("artifact_corrupt", None, None, LARGE_ID, "file_missing")
    ]


async def test_a_lost_row_is_named_once_with_the_first_event_that_needs_it(path: Path) -> None:
    change(path, f"DELETE FROM artifacts WHERE id = x'{sha256(b'[1]').hexdigest()}'")
    assert await findings(path) == [
        Finding("artifact_not_found", RUN, 4, sha256(b"[1]").hexdigest())
    ]


async def test_files_that_nothing_names_are_told_and_are_no_fault(path: Path) -> None:
    other = "ab" + "0" * 62
    for name in (f"ab/{other}", "README", f"00/{LARGE_ID}"):
        stray = Path(f"{path}.d", name)
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(b"?")
    report = await verified(path)
    assert report.found == 0
    assert report.strays == sorted([f"ab/{other}", "README", f"00/{LARGE_ID}"])


async def test_what_sqlite_itself_finds_is_told(path: Path) -> None:
    change(path, "DELETE FROM events WHERE run = 2 AND seq = 8")
    # The index of events still has its entry where the row is taken from the table alone.
    change(
        path,
        "PRAGMA writable_schema = ON",
        "DELETE FROM sqlite_schema WHERE name = 'sqlite_autoindex_artifacts_1'",
    )
    report = await verified(path)
    assert "store_corrupt" in {one.code for one in report.findings}


async def test_a_store_that_grows_while_it_is_verified_has_no_findings(path: Path) -> None:
    async with open_sqlite_store(path) as store:
        run = RunId.random()
        with store.audit() as audit:
            await store.put(ArtifactKind.Output, b"later")
            await a_run(run).store_in(store)
            report = await verify_store(audit, FoldRules)
        assert (report.runs, report.found) == (2, 0)
        with store.audit() as audit:
            assert (await verify_store(audit, FoldRules)).runs == 3


async def test_a_flipped_byte_in_the_file_is_found_or_without_effect(
    path: Path, long_form: bool
) -> None:
    whole = path.read_bytes()
    expected = await verified(path)
    async with open_sqlite_store(path, read_only=True) as store:
        heads = [await store.head(run) for run in (RUN, CHILD)]
    choose = random.Random(11)
    damaged = path.with_name("damaged")
    shutil.copytree(f"{path}.d", f"{damaged}.d")
    found = 0
    for _ in range(2_000 if long_form else 150):
        at = choose.randrange(len(whole))
        flipped = bytes([whole[at] ^ 1 << choose.randrange(8)])
        damaged.write_bytes(whole[:at] + flipped + whole[at + 1 :])
        try:
            report = await verified(damaged)
        except StorageFailure:
            found += 1
        else:
            if report.found:
                found += 1
            else:
                # It fell where nothing is: all that there was is still there.
                assert report == expected
                async with open_sqlite_store(damaged, read_only=True) as store:
                    assert heads == [await store.head(run) for run in (RUN, CHILD)]
        for suffix in ("", "-wal", "-shm"):
            Path(f"{damaged}{suffix}").unlink(missing_ok=True)
    assert found


async def test_pages_that_cannot_be_read_do_not_end_the_search(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    async with open_sqlite_store(path) as store:
        for number in range(40):
            await a_run(RunId(f"{number:08x}-0000-4000-8000-000000000000")).store_in(store)
    data = bytearray(path.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    # A leaf of the table of events, found by what is in it.
    at = data.index(b'"00000014-0000-4000') // page * page
    data[at : at + page] = bytes(page)
    path.write_bytes(data)
    report = await verified(path)
    named = {one.run_id for one in report.findings if one.run_id}
    assert named
    assert len(named) < 20
    assert "store_corrupt" in {one.code for one in report.findings}
    assert report.runs == 40
