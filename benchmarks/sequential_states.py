"""Sequential pure states per second against raw durable one-row commits; prints one JSON object.

A chain of pure states over a context of 4 KiB runs on the SQLite store: once over a constant one,
once where each state rewrites a counter in it, and so the whole snapshot. The raw contestant
commits one row at a time with the same apsw, WAL, synchronous=FULL. They take turns in slices of
one process, so that the ratio holds on a busy machine.
Run: `python -m benchmarks.sequential_states [--states 1000 10000] [--directory DIR]`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import apsw

from benchmarks.engine_runs import DONE, chain, engine_for, meta, print_report, start_run
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.ids import ContextKey
from mfm_ops.machine.io import IoProvider
from mfm_ops.machine.meta import StateMeta
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.state import StateOutcome
from mfm_ops.storage.sqlite import open_sqlite_store

SLICE = 50
"""States, and then raw commits, in one turn."""

COUNTER = ContextKey("bench.main.counter")
BLOB = ContextKey("bench.main.blob")
META = meta()


class Raw:
    """Durable one-row commits, and the time that they took."""

    def __init__(self, path: Path) -> None:
        self._connection = apsw.Connection(str(path))
        self._connection.pragma("journal_mode", "wal")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB)")
        self._row = b"x" * 300

    def slice_seconds(self) -> float:
        """One turn of `SLICE` commits."""
        before = time.perf_counter()
        for _ in range(SLICE):
            self._connection.execute("INSERT INTO rows (body) VALUES (?)", (self._row,))
        return time.perf_counter() - before


class Step:
    """A pure state that reads, or counts; every `SLICE`-th gives the raw contestant its turn."""

    def __init__(self, raw: Raw, *, rewrites: bool) -> None:
        self._raw = raw
        self._rewrites = rewrites
        self._done = 0
        self._since = time.perf_counter()
        self.ratios: list[float] = []
        self.state_seconds: list[float] = []

    def meta(self) -> StateMeta:
        """See `State.meta`."""
        return META

    async def handle(self, ctx: DynContext, io: IoProvider, rec: EventRecorder) -> StateOutcome:
        """See `State.handle`."""
        del io, rec
        self._done += 1
        if self._done % SLICE == 0:
            ours = time.perf_counter() - self._since
            theirs = self._raw.slice_seconds()
            self.ratios.append(theirs / ours)
            self.state_seconds.append(ours / SLICE)
            self._since = time.perf_counter()
        count = ctx.read(COUNTER)
        if self._rewrites:
            ctx.write(COUNTER, (count if isinstance(count, int) else 0) + 1)
        return DONE


async def measure(states: int, directory: Path, *, rewrites: bool = True) -> dict[str, object]:
    """One run of `states` states."""
    step = Step(Raw(directory / "raw.sqlite"), rewrites=rewrites)
    plan = chain(step, states)
    run = start_run(plan, {str(BLOB): "x" * 4000, str(COUNTER): 0})
    async with open_sqlite_store(directory / "store.sqlite") as store:
        await engine_for(plan).start(Stores(store, store), run)
        commits = store.commits
    # The first slice holds the planning and the start of the run.
    ratios, seconds = step.ratios[1:], step.state_seconds[1:]
    return {
        "states": states,
        "context": "rewritten" if rewrites else "constant",
        "commits": commits,
        "states_per_second_median": round(1 / statistics.median(seconds)),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_quartiles": [round(q, 3) for q in statistics.quantiles(ratios, n=4)],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--directory", type=Path, help="on the disk to measure")
    options = parser.parse_args(argv)
    runs = []
    for states in options.states:
        for rewrites in (False, True):
            with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
                measured = partial(measure, states, Path(scratch), rewrites=rewrites)
                runs.append(anyio.run(measured))
    print_report("sequential_states", context_bytes=4096, runs=runs)


if __name__ == "__main__":
    main()
