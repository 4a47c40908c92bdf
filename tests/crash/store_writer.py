"""A process that fills a store until it is killed; run by test_store_kill.

Prints a line once what it names is durable: `run seq` after an append, `artifact` after a put.
"""

# ruff: noqa: T201 - it tells its parent by printing

import asyncio
import random
import sys
from pathlib import Path

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.events import DomainEvent, Event, EventEnvelope
from mfm_ops.machine.ids import RunId
from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store


async def drive(store: SqliteStore, choose: random.Random, turns: int) -> None:
    """One run: artifacts of all sizes, and events that name them."""
    run, seq = RunId.random(), 0
    for _ in range(turns):
        named = [
            store.stage(ArtifactKind.Output, choose.randbytes(3000))
            for _ in range(choose.randrange(3))
        ]
        if choose.random() < 0.3:
            artifact = await store.put(ArtifactKind.Output, choose.randbytes(100_000))
            print(artifact, flush=True)
            named.append(artifact)
        count = choose.randrange(1, 4)
        events = [
            EventEnvelope(
                run_id=run,
                seq=seq + 1 + at,
                event=Event(Domain=DomainEvent(name="named", payload=[str(i) for i in named])),
            )
            for at in range(count)
        ]
        seq = await store.append(run, seq, events)
        print(run, seq, flush=True)


async def main(path: Path, seed: int, runs: int) -> None:
    """Several runs at once, then new ones, for ever."""
    choose = random.Random(seed)
    async with open_sqlite_store(path) as store:
        while True:
            async with asyncio.TaskGroup() as group:
                for _ in range(runs):
                    group.create_task(drive(store, choose, 10))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
