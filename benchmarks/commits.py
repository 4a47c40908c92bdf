"""Durable commits and reads of the SQLite store against raw apsw; prints one JSON object.

Contestants take turns within one process and on one disk, so that the ratios hold on a busy
machine. Run: `python -m benchmarks.commits [--rounds N] [--directory DIR]`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import apsw
import orjson

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.events import (
    Event,
    EventEnvelope,
    KernelEvent,
    StateCompleted,
    StateEntered,
)
from mfm_ops.machine.ids import ArtifactId, RunId, StateId
from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store

# Short, so that the contestants meet the same disk.
COMMITS_A_ROUND = 10
STATE = StateId("benchmark.main.a_state_of_usual_name")
SNAPSHOT = ArtifactId("5" * 64)


def attempt(run_id: RunId, seq: int) -> list[EventEnvelope]:
    """The two events of a pure state, each of about 300 bytes."""
    entered = StateEntered(state_id=STATE, attempt=0, base_snapshot_id=SNAPSHOT)
    completed = StateCompleted(state_id=STATE, context_snapshot_id=SNAPSHOT)
    kernel = KernelEvent(StateEntered=entered), KernelEvent(StateCompleted=completed)
    return [
        EventEnvelope(run_id=run_id, seq=at, ts_millis=1_700_000_000_000, event=Event(Kernel=what))
        for at, what in enumerate(kernel, seq)
    ]


def raw_connection(path: Path) -> apsw.Connection:
    """Durable commits of one row by apsw and nothing else."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB)")
    return connection


async def sequential(
    store: SqliteStore, raw: apsw.Connection, rounds: int, *, snapshots_differ: bool
) -> dict[str, Any]:
    """One append of two events and one staged artifact a commit, against one raw row a commit."""
    constant = os.urandom(64) * 64
    run_id, seq = RunId.random(), 0
    body = orjson.dumps({"row": "x" * 290})
    times: dict[str, list[float]] = {"store": [], "raw": []}
    before = store.commits
    for _ in range(rounds):
        work = [
            (
                attempt(run_id, seq + 1 + 2 * at),
                os.urandom(64) * 64 if snapshots_differ else constant,
            )
            for at in range(COMMITS_A_ROUND)
        ]
        start = time.perf_counter()
        for events, snapshot in work:
            store.stage(ArtifactKind.ContextSnapshot, snapshot)
            seq = await store.append(run_id, seq, events)
        times["store"].append((time.perf_counter() - start) / COMMITS_A_ROUND)
        start = time.perf_counter()
        for _ in range(COMMITS_A_ROUND):
            raw.execute("INSERT INTO rows (body) VALUES (?)", (body,))
        times["raw"].append((time.perf_counter() - start) / COMMITS_A_ROUND)
    if store.commits - before != rounds * COMMITS_A_ROUND:
        raise SystemExit("an append was not a commit")
    taken = {name: statistics.median(values) for name, values in times.items()}
    return {
        "us_per_commit": {name: round(seconds * 1e6, 1) for name, seconds in taken.items()},
        "rate_over_raw": round(taken["raw"] / taken["store"], 3),
    }


async def concurrent(store: SqliteStore, writers: int, appends: int) -> dict[str, Any]:
    """Writers of a run each, all at once, against the same appends one after the other."""

    async def write(run_id: RunId, count: int) -> None:
        seq = 0
        for _ in range(count):
            store.stage(ArtifactKind.ContextSnapshot, os.urandom(64) * 64)
            seq = await store.append(run_id, seq, attempt(run_id, seq + 1))

    start = time.perf_counter()
    await write(RunId.random(), writers * appends)
    alone = time.perf_counter() - start
    before = store.commits
    start = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(writers):
            group.start_soon(write, RunId.random(), appends)
    together = time.perf_counter() - start
    return {
        "writers": writers,
        "appends": writers * appends,
        "commits": store.commits - before,
        "rate_over_sequential": round(alone / together, 2),
    }


async def reading(store: SqliteStore, path: Path, events: int) -> dict[str, Any]:
    """Verified reads of one run, against its rows as parsed JSON."""
    run_id = RunId.random()
    for seq in range(0, events, 1000):
        pairs = (attempt(run_id, at) for at in range(seq + 1, seq + 1001, 2))
        await store.append(run_id, seq, [event for pair in pairs for event in pair])

    connection = apsw.Connection(str(path))
    rows = "SELECT body FROM events JOIN runs USING (run) WHERE run_id = ? ORDER BY seq"

    def plain() -> int:
        return len([orjson.loads(text) for (text,) in connection.execute(rows, (run_id,))])

    async def streamed() -> int:
        return len([None async for _ in store.iter_events(run_id)])

    times: dict[str, list[float]] = {"plain": [], "raw": [], "range": [], "iter": []}
    for _ in range(3):
        start = time.perf_counter()
        counts = [plain()]
        times["plain"].append(time.perf_counter() - start)
        start = time.perf_counter()
        counts.append(len(await store.read_raw(run_id, 1)))
        times["raw"].append(time.perf_counter() - start)
        start = time.perf_counter()
        counts.append(await streamed())
        times["iter"].append(time.perf_counter() - start)
        start = time.perf_counter()
        whole = await store.read_range(run_id, 1)
        times["range"].append(time.perf_counter() - start)
        counts.append(len(whole))
        del whole
        if counts != [events] * 4:
            raise SystemExit("events are missing")
    connection.close()
    taken = {name: min(values) for name, values in times.items()}
    return {
        "events": events,
        "ms": {name: round(seconds * 1e3) for name, seconds in taken.items()},
        "time_over_plain": {
            name: round(seconds / taken["plain"], 2) for name, seconds in taken.items()
        },
    }


async def measure(directory: Path, rounds: int) -> dict[str, Any]:
    """Everything, in a directory that is thrown away."""
    path = directory / "store.sqlite"
    raw = raw_connection(directory / "raw.sqlite")
    async with open_sqlite_store(path) as store:
        report = {
            "snapshots_differ": await sequential(store, raw, rounds, snapshots_differ=True),
            "one_snapshot": await sequential(store, raw, rounds, snapshots_differ=False),
            "concurrent": await concurrent(store, 50, 20),
            "reading": await reading(store, path, 100_000),
        }
    raw.close()
    return report


def main() -> None:
    """Measure all and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--directory", type=Path, help="on the disk to be measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        report = asyncio.run(measure(Path(directory), options.rounds))
    versions = {
        "python": platform.python_version(),
        "apsw": apsw.apsw_version(),
        "sqlite": apsw.sqlite_lib_version(),
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"versions": versions, **report, "peak_rss_bytes": peak}, indent=2))


if __name__ == "__main__":
    main()
