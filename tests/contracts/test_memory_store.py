"""The reference store keeps the contract."""

import pytest

from mfm_ops.storage.memory import MemoryStore
from tests.contracts.artifact_store_suite import ArtifactStoreSuite
from tests.contracts.event_store_suite import EventStoreSuite

pytestmark = pytest.mark.anyio


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class TestMemoryEvents(EventStoreSuite):
    pass


class TestMemoryArtifacts(ArtifactStoreSuite):
    pass
