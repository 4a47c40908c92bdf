"""Processes that write a store are killed at random points; what they were told is durable is."""

# ruff: noqa: ASYNC240 - a test's own look at its files may block

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import orjson
import pytest

from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.storage.sqlite import open_sqlite_store

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
WRITER = Path(__file__).with_name("store_writer.py")


def start_writer(path: Path, seed: int, runs: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(WRITER), str(path), str(seed), str(runs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def kill_after(writer: subprocess.Popen[str], lines: int) -> list[str]:
    """What the writer said, up to a kill that comes `lines` lines after its start."""
    assert writer.stdout is not None
    said = [writer.stdout.readline() for _ in range(lines)]
    writer.kill()
    said += writer.stdout.readlines()
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    # The last line may have been cut off by the kill.
    return [line for line in said if line.endswith("\n")]


def promises(lines: list[str]) -> tuple[dict[RunId, int], set[ArtifactId]]:
    heads: dict[RunId, int] = {}
    artifacts: set[ArtifactId] = set()
    for line in lines:
        name, *seq = line.split()
        if seq:
            heads[RunId(name)] = int(seq[0])
        else:
            artifacts.add(ArtifactId(name))
    return heads, artifacts


async def check(path: Path, heads: dict[RunId, int], artifacts: set[ArtifactId]) -> None:
    """Every stream verifies, every artifact that an event names is there, nothing is lost."""
    async with open_sqlite_store(path) as store:
        listed = {line.run_id: line.head_seq for line in await store.list_runs()}
        assert listed.keys() >= heads.keys()
        for run, head_seq in listed.items():
            bodies = await store.read_raw(run, 1)
            assert len(bodies) == head_seq >= heads.get(run, 0)
            for body in bodies:
                named = orjson.loads(body)["event"]["Domain"]["payload"]
                artifacts |= {ArtifactId(name) for name in named}
        for artifact in artifacts:
            await store.get(artifact)
    # The store's opening has swept what the dead left behind.
    assert list(Path(f"{path}.d/tmp").glob("*")) == []


@pytest.mark.parametrize("writers", [1, 2])
async def test_a_store_survives_kills_of_its_writers(
    tmp_path: Path, writers: int, long_form: bool
) -> None:
    path = tmp_path / "store.sqlite"
    choose = random.Random(writers)
    heads: dict[RunId, int] = {}
    artifacts: set[ArtifactId] = set()
    for _ in range(150 if long_form else 6):
        at_work = [start_writer(path, choose.getrandbits(32), 4) for _ in range(writers)]
        for writer in at_work:
            new_heads, new_artifacts = promises(kill_after(writer, choose.randrange(1, 40)))
            heads |= new_heads
            artifacts |= new_artifacts
        await check(path, heads, set(artifacts))
    connection = apsw.Connection(str(path))
    assert connection.pragma("integrity_check") == "ok"
    connection.close()


async def test_a_killed_writer_does_not_hold_up_another(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    killed, living = start_writer(path, 1, 4), start_writer(path, 2, 4)
    first = kill_after(killed, 5)
    # It has written more than it could have before the other died.
    second = kill_after(living, 60)
    heads, artifacts = promises(first + second)
    await check(path, heads, artifacts)


async def test_a_log_that_is_cut_off_opens_as_an_earlier_state(tmp_path: Path) -> None:
    path, copy = tmp_path / "store.sqlite", tmp_path / "copy.sqlite"
    # The log is emptied by whoever closes the store last, so nobody does.
    heads, _ = promises(kill_after(start_writer(path, 3, 1), 25))
    log, base = Path(f"{path}-wal").read_bytes(), path.read_bytes()
    assert len(log) > 0
    seen = []
    for length in range(0, len(log), max(1, len(log) // 40)):
        copy.write_bytes(base)
        Path(f"{copy}-wal").write_bytes(log[:length])
        Path(f"{copy}-shm").unlink(missing_ok=True)
        async with open_sqlite_store(copy) as store:
            lines = await store.list_runs()
            for line in lines:
                assert len(await store.read_raw(line.run_id, 1)) == line.head_seq
            seen.append(sum(line.head_seq for line in lines))
    assert seen == sorted(seen)
    assert seen[-1] <= sum(heads.values()) + 3
