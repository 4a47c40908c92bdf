"""Random operations have the same outcome on the reference and on the SQLite store."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import artifact_id_for_bytes
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import RunId
from mfm_ops.storage.memory import MemoryStore
from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store
from tests.contracts.event_store_suite import Store, said

RUNS = [RunId(f"{number:08x}-0000-4000-8000-000000000000") for number in range(4)]
KINDS = [ArtifactKind.Output, ArtifactKind.Manifest, ArtifactKind.other("é")]

runs = st.sampled_from(RUNS)
kinds = st.sampled_from(KINDS)
payloads = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
# Few of them, so that the same bytes come again; some too large for the file.
blobs = st.sampled_from([bytes([n]) * size for n in range(3) for size in (0, 9, 65_536, 70_000)])


class StoresAgree(RuleBasedStateMachine):
    """Both stores do what is asked; whatever they answer or raise is compared."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.memory = MemoryStore()
        self.sqlite = self.open()

    def open(self) -> SqliteStore:
        return open_sqlite_store(Path(self.directory.name) / "store.sqlite")

    def both(self, do: Any) -> None:
        answers = [self.answer(do(store)) for store in (self.memory, self.sqlite)]
        assert answers[0] == answers[1]

    def answer(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self.loop.run_until_complete(work)
        except StorageFailure as failure:
            return failure.error

    @rule(
        run=runs, off=st.sampled_from([0, 0, 0, 0, -1, 1]), content=st.lists(payloads, max_size=4)
    )
    def append(self, run: RunId, off: int, content: list[Any]) -> None:
        async def do(store: Store) -> int:
            expected = max(0, await store.head_seq(run) + off)
            events = [said(run, seq, payload=p) for seq, p in enumerate(content, expected + 1)]
            return await store.append(run, expected, events)

        self.both(do)

    @rule(run=runs, content=payloads, blob=blobs, kind=kinds)
    def stage_and_append(self, run: RunId, content: Any, blob: bytes, kind: ArtifactKind) -> None:
        async def do(store: Store) -> int:
            if len(blob) <= store.stage_limit_bytes:
                store.stage(kind, blob)
            head_seq = await store.head_seq(run)
            return await store.append(run, head_seq, [said(run, head_seq + 1, payload=content)])

        self.both(do)

    @rule(blob=blobs, kind=kinds)
    def put(self, blob: bytes, kind: ArtifactKind) -> None:
        self.both(lambda store: store.put(kind, blob))

    @rule(blob=blobs)
    def get(self, blob: bytes) -> None:
        artifact = artifact_id_for_bytes(blob)
        for look in ("exists", "get", "artifact_kind"):
            self.both(lambda store, look=look: getattr(store, look)(artifact))

    @rule(run=runs, first=st.integers(-1, 12), last=st.none() | st.integers(-1, 12))
    def read(self, run: RunId, first: int, last: int | None) -> None:
        self.both(lambda store: store.read_range(run, first, last))
        self.both(lambda store: store.read_raw(run, first, last))

    @rule(prefix=st.sampled_from(["", "0", "00000001", "a", "f"]), limit=st.integers(0, 5))
    def look_up(self, prefix: str, limit: int) -> None:
        self.both(lambda store: store.list_runs(prefix=prefix, limit=limit))
        self.both(lambda store: store.find_artifacts(prefix, limit=limit))

    @rule()
    def reopen(self) -> None:
        self.sqlite.close()
        self.sqlite = self.open()

    @invariant()
    def heads_agree(self) -> None:
        for run in RUNS:
            self.both(lambda store, run=run: store.head(run))

    def teardown(self) -> None:
        self.sqlite.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.directory.cleanup()


TestStoresAgree = StoresAgree.TestCase
TestStoresAgree.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
