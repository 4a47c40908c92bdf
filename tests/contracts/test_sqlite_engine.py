"""The engine over the SQLite store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store
from tests.contracts.engine_control_suite import EngineControlSuite
from tests.contracts.engine_suite import EngineSuite
from tests.support import Bench

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


class TestSqliteEngineControl(EngineControlSuite):
    pass
