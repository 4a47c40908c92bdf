"""`mfm_ops.runtime.follow`: a stream read a piece at a time tells what it tells as a whole."""

import pytest

from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import RunId
from mfm_ops.runtime.follow import PIECE_EVENTS, follow
from mfm_ops.runtime.history import Folding, fold
from mfm_ops.storage.memory import MemoryStore
from tests.support import Bench, chain_of, domain, state

pytestmark = pytest.mark.anyio

RUN = RunId("6ba7b810-9dad-11d1-80b4-00c04fd430c8")


async def test_the_history_of_all_pieces_is_that_of_the_whole() -> None:
    bench = Bench(MemoryStore())
    result = await bench.start(chain_of(*[state()] * PIECE_EVENTS))
    events = await bench.store.read_range(result.run_id, 1)
    assert len(events) > 2 * PIECE_EVENTS
    folding = Folding(result.run_id)
    assert await follow(bench.store, folding) == fold(result.run_id, events)
    assert folding.seq == len(events)


async def test_what_was_seen_is_not_read_again() -> None:
    bench = Bench(MemoryStore())
    result = await bench.start(chain_of(state()))
    folding = Folding(result.run_id)
    before = await follow(bench.store, folding)
    added = domain(result.run_id, folding.seq + 1, "noted")
    await bench.store.append(result.run_id, folding.seq, [added])
    assert await follow(bench.store, folding) is before
    assert before.head_seq == added.seq


async def test_a_run_without_events_is_not_found() -> None:
    with pytest.raises(StorageFailure, match="run_not_found"):
        await follow(MemoryStore(), Folding(RUN))
