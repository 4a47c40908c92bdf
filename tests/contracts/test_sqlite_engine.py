"""The engine over the SQLite store."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import RunPhase
from mfm_ops.machine.errors import MfmFailure
from mfm_ops.machine.events import DomainEvent
from mfm_ops.machine.ids import ContextKey, FactKey
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.transport import LiveIoEnv, TransportReply
from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store
from tests.contracts.engine_children_suite import EngineChildrenSuite
from tests.contracts.engine_control_suite import EngineControlSuite
from tests.contracts.engine_fork_suite import EngineForkSuite
from tests.contracts.engine_parallel_suite import EngineParallelSuite
from tests.contracts.engine_stops_suite import EngineStopsSuite
from tests.contracts.engine_suite import EngineSuite
from tests.support import CANARY, Bench, ask, chain_of, failure, reads, stored_bytes

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = open_sqlite_store(tmp_path / "store.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def bench(store: SqliteStore) -> Bench:
    return Bench(store)


class TestSqliteEngine(EngineSuite):
    pass


class TestSqliteEngineChildren(EngineChildrenSuite):
    pass


class TestSqliteEngineControl(EngineControlSuite):
    pass


class TestSqliteEngineFork(EngineForkSuite):
    pass


class TestSqliteEngineParallel(EngineParallelSuite):
    pass


class TestSqliteEngineStops(EngineStopsSuite):
    pass


async def test_a_secret_in_any_place_reaches_no_file_of_the_store(
    bench: Bench, tmp_path: Path
) -> None:
    error = failure(CANARY, CANARY, details={"exception": CANARY})

    async def answer(call: IoCall, env: LiveIoEnv) -> TransportReply:
        return TransportReply({"a": CANARY} if call.request == "bad" else 1, {"note": CANARY})

    async def leak(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        leaks: list[Callable[[], Awaitable[object]]] = [
            lambda: io.call(ask(CANARY)),
            lambda: io.call(ask(1, CANARY)),
            lambda: io.call(ask("bad")),
            lambda: io.call(ask("good")),
            lambda: io.record_value(FactKey("k"), CANARY),
            lambda: io.record_value(FactKey(CANARY), 1),
            lambda: rec.emit(DomainEvent(name="said", payload=[CANARY])),
            lambda: rec.emit(DomainEvent(name=CANARY, payload=None)),
        ]
        for each in leaks:
            with contextlib.suppress(MfmFailure):
                await each()
        ctx.write(ContextKey("k"), CANARY)
        ctx.write(ContextKey(CANARY), "x")
        raise error

    bench.world.answer = answer
    result = await bench.start(chain_of(reads(leak)))
    assert result.phase is RunPhase.Failed
    assert (await bench.names(result.run_id)).count("fact_recorded") == 1
    assert CANARY.encode() not in stored_bytes(tmp_path)
