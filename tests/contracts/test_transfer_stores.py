"""Both stores can be verified, exported from and imported into."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from mfm_ops.storage.memory import MemoryStore
from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store
from tests.contracts.transfer_suite import TransferSuite, exported, imported, whole
from tests.run_streams import RUN, Stream, valid_streams

pytestmark = pytest.mark.anyio


class TestMemoryTransfer(TransferSuite):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    @pytest.fixture
    def other(self) -> MemoryStore:
        return MemoryStore()


class TestSqliteTransfer(TransferSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqliteStore]:
        yield from opened(tmp_path / "store.sqlite")

    @pytest.fixture
    def other(self, tmp_path: Path) -> Iterator[SqliteStore]:
        yield from opened(tmp_path / "other.sqlite")


class TestFromMemoryToSqlite(TestSqliteTransfer):
    @pytest.fixture
    def store(self) -> Any:
        return MemoryStore()


def opened(path: Path) -> Iterator[SqliteStore]:
    store = open_sqlite_store(path)
    yield store
    store.close()


@given(valid_streams())
@settings(max_examples=60)
def test_export_import_export_gives_the_same_bytes(stream: Stream) -> None:
    async def there_and_back() -> None:
        first, last = MemoryStore(), MemoryStore()
        await stream.store_in(first)
        data = await exported(first)
        with tempfile.TemporaryDirectory() as directory:
            async with open_sqlite_store(Path(directory) / "store.sqlite") as between:
                await imported(between, data)
                assert await between.read_raw(RUN, 1) == stream.bodies
                assert (await whole(between)).findings == []
                await imported(last, await exported(between))
        assert await exported(last) == data

    asyncio.run(there_and_back())
