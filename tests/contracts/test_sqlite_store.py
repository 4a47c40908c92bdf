"""The SQLite store keeps the contract."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store
from tests.contracts.artifact_store_suite import ArtifactStoreSuite
from tests.contracts.event_store_suite import EventStoreSuite

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = open_sqlite_store(tmp_path / "store.sqlite")
    yield opened
    opened.close()


class TestSqliteEvents(EventStoreSuite):
    pass


class TestSqliteArtifacts(ArtifactStoreSuite):
    pass
