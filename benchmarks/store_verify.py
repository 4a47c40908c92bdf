"""Verifying a store of 100,000 events, against hashing the same bytes and parsing them once.

Prints JSON. Both in one process, interleaved; the ratio's goal is at most 3. The yardstick has all
bytes in memory already; `verify` reads them from the file, and lets SQLite check that as well.
"""

import argparse
import asyncio
import gc
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import apsw
import orjson

from mfm_ops.app.rules import FoldRules
from mfm_ops.machine import events as ev
from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.events import DomainEvent, Event, EventEnvelope, KernelEvent
from mfm_ops.machine.ids import ArtifactId, OpId, RunId, StateId
from mfm_ops.storage.findings import Verified
from mfm_ops.storage.sqlite import open_sqlite_store
from mfm_ops.storage.verify import verify_store

APPEND = 1000


def history(run_id: RunId, count: int, shape: str, ids: list[ArtifactId]) -> list[EventEnvelope]:
    """A chain of states, each with a snapshot of its own; with `facts`, a fact in each."""
    found: list[EventEnvelope] = []

    def add(event: Event) -> None:
        seq = len(found) + 1
        found.append(
            EventEnvelope(run_id=run_id, seq=seq, ts_millis=1_700_000_000_000, event=event)
        )

    def kernel(body: ev.RunStarted | ev.StateEntered | ev.StateCompleted) -> None:
        add(Event(Kernel=KernelEvent.model_validate({type(body).__name__: body})))

    kernel(ev.RunStarted(op_id=OpId("bench"), manifest_id=ids[0], initial_snapshot_id=ids[0]))
    state = 0
    while len(found) < count:
        one, before, after = StateId(f"bench.main.s{state}"), ids[state], ids[state + 1]
        kernel(ev.StateEntered(state_id=one, attempt=0, base_snapshot_id=before))
        if shape == "facts":
            payload = {
                "key": f"mfm:exec|state:{one}|req:{after}",
                "payload_id": str(after),
                "meta": {"transport": "exec", "request_id": str(before), "duration_ms": 12},
            }
            add(Event(Domain=DomainEvent(name="fact_recorded", payload=payload)))
        kernel(ev.StateCompleted(state_id=one, context_snapshot_id=after))
        state += 1
    return found[:count]


async def fill(path: Path, count: int, shape: str) -> None:
    """A store with one run of `count` events, and an artifact for each state."""
    run_id = RunId.random()
    async with open_sqlite_store(path) as store:
        states = count // (3 if shape == "facts" else 2) + 2
        blobs = [b'{"bench.main.count":%d}' % number for number in range(states)]
        ids = [store.stage(ArtifactKind.ContextSnapshot, blob) for blob in blobs]
        events = history(run_id, count, shape, ids)
        for start in range(0, len(events), APPEND):
            await store.append(run_id, start, events[start : start + APPEND])


def load(path: Path) -> tuple[list[bytes], list[bytes]]:
    """The bytes of all events, and of all artifacts."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    events = connection.execute("SELECT CAST(body AS BLOB) FROM events ORDER BY run, seq")
    artifacts = connection.execute("SELECT body FROM artifacts")
    found = [body for (body,) in events], [body for (body,) in artifacts]
    connection.close()
    return found


def hash_and_parse(events: list[bytes], artifacts: list[bytes]) -> None:
    """The yardstick."""
    running = b""
    for body in events:
        running = sha256(running + body).digest()
        orjson.loads(body)
    for body in artifacts:
        sha256(body).digest()
        orjson.loads(body)


def verify(path: Path) -> Verified:
    """What `mfm store verify` does."""

    async def work() -> Verified:
        async with open_sqlite_store(path, read_only=True) as store:
            with store.audit() as audit:
                return await verify_store(audit, FoldRules)

    return asyncio.run(work())


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes, after a collection that both sides get."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measured(directory: Path, shape: str, count: int, rounds: int) -> dict[str, object]:
    """One shape of history."""
    path = directory / f"{shape}.sqlite"
    asyncio.run(fill(path, count, shape))
    events, artifacts = load(path)
    report = verify(path)
    assert (report.events, report.found) == (count, 0), report.findings[:3]
    yardstick, verified = [], []
    for _ in range(rounds):
        yardstick.append(timed(lambda: hash_and_parse(events, artifacts)))
        verified.append(timed(lambda: verify(path)))
    return {
        "artifacts": len(artifacts),
        "verify_ms": round(statistics.median(verified) * 1000, 1),
        "hash_and_parse_ms": round(statistics.median(yardstick) * 1000, 1),
        "ratio": round(statistics.median(verified) / statistics.median(yardstick), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        shapes = {
            shape: measured(Path(directory), shape, arguments.events, arguments.rounds)
            for shape in ("pure", "facts")
        }
    report = {
        "benchmark": "store_verify",
        "events": arguments.events,
        **shapes,
        "goal": 3,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "versions": {
            "python": platform.python_version(),
            "sqlite": apsw.sqlite_lib_version(),
            "orjson": orjson.__version__,
        },
    }
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
