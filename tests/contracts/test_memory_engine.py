"""The engine over the reference store."""

import pytest

from mfm_ops.storage.memory import MemoryStore
from tests.contracts.engine_children_suite import EngineChildrenSuite
from tests.contracts.engine_control_suite import EngineControlSuite
from tests.contracts.engine_fork_suite import EngineForkSuite
from tests.contracts.engine_parallel_suite import EngineParallelSuite
from tests.contracts.engine_stops_suite import EngineStopsSuite
from tests.contracts.engine_suite import EngineSuite
from tests.support import Bench

pytestmark = pytest.mark.anyio


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def bench(store: MemoryStore) -> Bench:
    return Bench(store)


class TestMemoryEngine(EngineSuite):
    pass


class TestMemoryEngineChildren(EngineChildrenSuite):
    pass


class TestMemoryEngineControl(EngineControlSuite):
    pass


class TestMemoryEngineFork(EngineForkSuite):
    pass


class TestMemoryEngineParallel(EngineParallelSuite):
    # Schedules differ in what the engine does, not in what the store does.
    schedules = 1000


class TestMemoryEngineStops(EngineStopsSuite):
    pass
