"""`mfm run status` of a run with 100,000 events, against loading the same rows as parsed JSON.

Prints JSON. Both in one process, interleaved; the ratio's goal is at most 6.
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
from collections.abc import Callable, Mapping
from pathlib import Path

import apsw
import orjson
import pydantic

from mfm_ops.app import App
from mfm_ops.machine.events import DomainEvent, Event, EventEnvelope, KernelEvent
from mfm_ops.machine.ids import RunId
from mfm_ops.settings import load_settings
from mfm_ops.storage.sqlite import open_sqlite_store

SNAPSHOT = "0" * 64
APPEND = 1000


def history(run_id: RunId, events: int) -> list[EventEnvelope]:
    """A run of many states: each enters, records a fact, completes; then the run is over."""

    def kernel(seq: int, name: str, body: Mapping[str, object]) -> EventEnvelope:
        event = KernelEvent.model_validate({name: body}, strict=False)
        return EventEnvelope(run_id=run_id, seq=seq, ts_millis=seq, event=Event(Kernel=event))

    def fact(seq: int, state: int) -> EventEnvelope:
        payload = {
            "key": f"mfm:exec|state:bench.main.s{state}|req:{SNAPSHOT}",
            "payload_id": SNAPSHOT,
            "meta": {"transport": "exec", "request_id": SNAPSHOT, "duration_ms": 12},
        }
        event = Event(Domain=DomainEvent(name="fact_recorded", payload=payload))
        return EventEnvelope(run_id=run_id, seq=seq, ts_millis=seq, event=event)

    found = [
        kernel(
            1,
            "RunStarted",
            {"op_id": "bench", "manifest_id": SNAPSHOT, "initial_snapshot_id": SNAPSHOT},
        )
    ]
    state = 0
    while len(found) < events - 3:
        state_id, seq = f"bench.main.s{state}", len(found)
        entered = {"state_id": state_id, "attempt": 0, "base_snapshot_id": SNAPSHOT}
        found.append(kernel(seq + 1, "StateEntered", entered))
        found.append(fact(seq + 2, state))
        completed = {"state_id": state_id, "context_snapshot_id": SNAPSHOT}
        found.append(kernel(seq + 3, "StateCompleted", completed))
        state += 1
    found.append(kernel(len(found) + 1, "RunCompleted", {"status": "Completed"}))
    return found


async def fill(path: Path, run_id: RunId, events: list[EventEnvelope]) -> None:
    """Store the events, many to a commit."""
    async with open_sqlite_store(path) as store:
        for start in range(0, len(events), APPEND):
            await store.append(run_id, start, events[start : start + APPEND])


def load_rows(path: Path) -> int:
    """The yardstick: all rows of the run as parsed JSON."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    rows = [orjson.loads(body) for (body,) in connection.execute("SELECT body FROM events")]
    connection.close()
    return len(rows)


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes, after a collection that both sides get."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.sqlite"
        run_id = RunId.random()
        events = history(run_id, arguments.events)
        asyncio.run(fill(path, run_id, events))
        count = len(events)
        del events
        settings = load_settings({"HOME": directory}, Path(directory), {"store.path": str(path)})
        app = App(settings, {}, Path(directory))
        status, rows = [], []
        for _ in range(arguments.rounds):
            rows.append(timed(lambda: load_rows(path)))
            status.append(timed(lambda: app.run_status(run_id)))
    ratio = statistics.median(status) / statistics.median(rows)
    report = {
        "benchmark": "run_status",
        "events": count,
        "status_ms": round(statistics.median(status) * 1000, 1),
        "rows_as_json_ms": round(statistics.median(rows) * 1000, 1),
        "ratio": round(ratio, 2),
        "goal": 6,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "versions": {
            "python": platform.python_version(),
            "sqlite": apsw.sqlite_lib_version(),
            "orjson": orjson.__version__,
            "pydantic": pydantic.VERSION,
        },
    }
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
