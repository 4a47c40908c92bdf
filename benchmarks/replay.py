"""Replaying a chain of pure states against running it; prints one JSON object.

The chain of `sequential_states.py` over a constant 4 KiB context runs on the SQLite store, and its
replay reads that file again, from opening it to the verdict. Live and replay take turns in one
process, so that the ratio holds on a busy machine. A second chain asks a transport in each state.
Run: `python -m benchmarks.replay [--states 10000] [--rounds 3] [--directory DIR]`.
"""

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from benchmarks.engine_runs import (
    BUILD,
    DONE,
    chain,
    engine_for,
    meta,
    print_report,
    run_config,
    start_run,
)
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.ids import ContextKey, RunId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.meta import SideEffectKind, StateMeta
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.state import StateOutcome
from mfm_ops.machine.transport import LiveIoEnv, TransportReply
from mfm_ops.runtime.router import TransportRegistry
from mfm_ops.runtime.verdict import ReplayEnv, replay
from mfm_ops.runtime.verdict_record import RecordingBuilder
from mfm_ops.storage.sqlite import open_sqlite_store

COUNTER = ContextKey("bench.main.counter")
BLOB = ContextKey("bench.main.blob")


class Step:
    """A state that counts; with `asks` it asks the transport first."""

    def __init__(self, *, asks: bool) -> None:
        self._asks = asks
        self._meta = meta(SideEffectKind.ReadOnlyIo if asks else SideEffectKind.Pure)

    def meta(self) -> StateMeta:
        """See `State.meta`."""
        return self._meta

    async def handle(self, ctx: DynContext, io: IoProvider, rec: EventRecorder) -> StateOutcome:
        """See `State.handle`."""
        del rec
        count = ctx.read(COUNTER)
        assert isinstance(count, int)
        if self._asks:
            await io.call(IoCall(namespace="bench", request={"count": count}))
        ctx.write(COUNTER, count + 1)
        return DONE


class Echo:
    """A transport that costs nothing."""

    namespace_group = "bench"

    def make(self, env: LiveIoEnv) -> "Echo":
        """See `LiveIoTransportFactory.make`."""
        del env
        return self

    async def call(self, call: IoCall) -> TransportReply:
        """See `LiveIoTransport.call`."""
        return TransportReply(call.request, {})


class Contest:
    """A chain of `states` states, to be run and replayed."""

    def __init__(self, states: int, *, asks: bool) -> None:
        self.plan = chain(Step(asks=asks), states)

    async def live(self, path: Path, run_id: RunId) -> None:
        """Run the chain on a new store."""
        engine = engine_for(self.plan, TransportRegistry([Echo()]))
        run = start_run(self.plan, {str(BLOB): "x" * 4000, str(COUNTER): 0}, run_id=run_id)
        async with open_sqlite_store(path) as store:
            await engine.start(Stores(store, store), run)

    async def again(self, path: Path, run_id: RunId) -> None:
        """Replay it from the file."""
        async with open_sqlite_store(path, create=False, read_only=True) as store:
            builder = RecordingBuilder(run_id)
            async for envelope in store.iter_events(run_id):
                builder.feed(envelope)
            env = ReplayEnv(Stores(store, store), self.plan, run_config(), build=BUILD)
            verdict = await replay(builder.done(), env)
        assert verdict.verdict == "reproduced"


def seconds(work: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """How long `work` takes, the collector's rubbish of before left out."""
    gc.collect()
    before = time.perf_counter()
    asyncio.run(work())
    return time.perf_counter() - before


def measure(states: int, rounds: int, directory: Path, *, asks: bool) -> dict[str, object]:
    """The rounds of one contest."""
    contest = Contest(states, asks=asks)
    live, again = [], []
    for number in range(rounds):
        path, run_id = directory / f"{asks}-{number}.sqlite", RunId.random()
        live.append(seconds(lambda p=path, r=run_id: contest.live(p, r)))  # type: ignore[misc]
        again.append(seconds(lambda p=path, r=run_id: contest.again(p, r)))  # type: ignore[misc]
    ratios = [one / other for one, other in zip(live, again, strict=True)]
    return {
        "states": states,
        "calls_a_state": int(asks),
        "live_seconds": round(statistics.median(live), 3),
        "replay_seconds": round(statistics.median(again), 3),
        "replay_times_as_fast_median": round(statistics.median(ratios), 2),
        "replay_times_as_fast_lowest": round(min(ratios), 2),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="on the disk to measure")
    options = parser.parse_args(argv)
    # As the command line does.
    gc.set_threshold(100_000)
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        runs = [
            measure(options.states, options.rounds, Path(scratch), asks=asks)
            for asks in (False, True)
        ]
    print_report("replay", context_bytes=4096, runs=runs)


if __name__ == "__main__":
    main()
