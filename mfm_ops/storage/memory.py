"""The reference store: events and artifacts in this process's memory, nothing on a disk.

It says what a store means, in as few lines as that takes; the contract suites hold every other
backend to it. Durability is left to `sqlite`.
"""

from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

from anyio.lowlevel import checkpoint_if_cancelled

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import artifact_id_for_bytes, canonical_json_bytes
from mfm_ops.machine.events import EventEnvelope
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.machine.stores import (
    Adoption,
    RunHead,
    RunListing,
    StoreAudit,
    StoredArtifact,
    StoredRun,
)
from mfm_ops.storage.failures import (
    artifact_corrupt,
    artifact_not_found,
    concurrency,
    event_corrupt,
    store_closed,
)
from mfm_ops.storage.stream import Row, chain, decode, encode, listing, verify

__all__ = ["MemoryStore"]

_STAGE_LIMIT_BYTES: Final = 64 * 1024
_MEMORY: Final = ":memory:"
_ROWS: Final = 512


class MemoryStore:
    """An EventStore, StagingArtifactStore and RunCatalog that forgets when it is gone.

    `commits` counts what a durable store would have had to sync: appends of at least one event,
    and puts of new bytes.
    """

    def __init__(self) -> None:
        self.commits = 0
        self.warnings: tuple[str, ...] = ()
        self._runs: dict[RunId, list[Row]] = {}
        self._artifacts: dict[ArtifactId, tuple[ArtifactKind, bytes]] = {}
        self._staged: set[ArtifactId] = set()
        self._closed = False

    # Events

    async def head_seq(self, run_id: RunId) -> int:
        return (await self.head(run_id)).seq

    async def head(self, run_id: RunId) -> RunHead:
        rows = self._rows(run_id)
        return RunHead(rows[-1][0], rows[-1][2].hex()) if rows else RunHead(0, "")

    async def append(
        self, run_id: RunId, expected_seq: int, events: Sequence[EventEnvelope]
    ) -> int:
        await checkpoint_if_cancelled()
        bodies = encode(run_id, expected_seq, events)
        rows = self._rows(run_id)
        if len(rows) != expected_seq:
            raise concurrency(run_id, expected_seq, len(rows))
        if bodies or self._staged:
            self.commits += 1
            self._staged.clear()
        if bodies:
            hashes = chain(rows[-1][2] if rows else b"", bodies)
            seqs = range(expected_seq + 1, expected_seq + 1 + len(bodies))
            self._runs.setdefault(run_id, []).extend(zip(seqs, bodies, hashes, strict=True))
        return expected_seq + len(bodies)

    async def read_range(
        self, run_id: RunId, from_seq: int, to_seq: int | None = None
    ) -> list[EventEnvelope]:
        return decode(run_id, max(from_seq, 1), await self.read_raw(run_id, from_seq, to_seq))

    async def read_raw(
        self, run_id: RunId, from_seq: int, to_seq: int | None = None
    ) -> list[bytes]:
        """The canonical bytes of events `from_seq` to `to_seq`, verified as in `read_range`."""
        rows = self._rows(run_id)
        first = max(from_seq, 1)
        previous = rows[first - 2][2] if 1 < first <= len(rows) else b""
        last = len(rows) if to_seq is None else max(to_seq, 0)
        return verify(run_id, first, previous, rows[first - 1 : last])

    async def iter_events(
        self, run_id: RunId, from_seq: int = 1, to_seq: int | None = None
    ) -> AsyncIterator[EventEnvelope]:
        """The events of `read_range` one after the other, without holding them all."""
        for event in await self.read_range(run_id, from_seq, to_seq):
            yield event

    async def list_runs(self, *, limit: int | None = None, prefix: str = "") -> list[RunListing]:
        self._check_open()
        newest = [run_id for run_id in reversed(self._runs) if run_id.startswith(prefix)]
        return [_listing(run_id, self._runs[run_id]) for run_id in newest[:limit]]

    async def runs_naming_child(self, child: RunId) -> list[RunId]:
        self._check_open()
        needle = f'"child_run_id":"{child}"'.encode()
        return [run for run, rows in self._runs.items() if any(needle in row[1] for row in rows)]

    async def adopt(self, runs: Sequence[Adoption]) -> None:
        await checkpoint_if_cancelled()
        adopted: dict[RunId, list[Row]] = {}
        for run_id, expected_seq, bodies, running_hash in runs:
            rows = adopted.get(run_id, self._rows(run_id))
            if len(rows) != expected_seq:
                raise concurrency(run_id, expected_seq, len(rows))
            new = list(bodies)
            hashes = chain(rows[-1][2] if rows else b"", new)
            adopted[run_id] = [*rows, *zip(range(len(rows) + 1, 1 << 53), new, hashes)]  # noqa: B905
            if adopted[run_id][-1][2].hex() != running_hash:
                raise event_corrupt(run_id, len(adopted[run_id]), "running_hash")
        self.commits += 1
        self._staged.clear()
        self._runs |= adopted

    @contextmanager
    def audit(self) -> Iterator[StoreAudit]:
        self._check_open()
        runs = {run_id: rows[:] for run_id, rows in self._runs.items()}
        yield _MemoryAudit(runs, dict(self._artifacts))

    # Artifacts

    @property
    def stage_limit_bytes(self) -> int:
        return _STAGE_LIMIT_BYTES

    def stage(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        self._check_open()
        if len(data) > _STAGE_LIMIT_BYTES:
            raise ValueError("the artifact is larger than stage_limit_bytes; stage_large it")
        return self._keep(kind, data)

    async def stage_large(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        await checkpoint_if_cancelled()
        self._check_open()
        return self._keep(kind, data)

    def _keep(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        artifact_id = artifact_id_for_bytes(data)
        if artifact_id not in self._artifacts:
            self._artifacts[artifact_id] = (kind, bytes(data))
            self._staged.add(artifact_id)
        return artifact_id

    async def put(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        await checkpoint_if_cancelled()
        self._check_open()
        artifact_id = artifact_id_for_bytes(data)
        if artifact_id not in self._artifacts or artifact_id in self._staged:
            self.commits += 1
            self._staged.clear()
            self._artifacts.setdefault(artifact_id, (kind, bytes(data)))
        return artifact_id

    async def get(self, artifact_id: ArtifactId) -> bytes:
        data = self._artifact(artifact_id)[1]
        if artifact_id_for_bytes(data) != artifact_id:
            raise artifact_corrupt(artifact_id)
        return data

    async def exists(self, artifact_id: ArtifactId) -> bool:
        self._check_open()
        return artifact_id in self._artifacts

    async def artifact_kind(self, artifact_id: ArtifactId) -> ArtifactKind:
        """The kind under which the artifact was first stored; `NotFound` if it was not."""
        return self._artifact(artifact_id)[0]

    async def find_artifacts(self, prefix: str, limit: int = 2) -> list[ArtifactId]:
        """Up to `limit` ids that start with `prefix`, in their order."""
        self._check_open()
        ids = sorted(self._artifacts)
        start = bisect_left(ids, prefix)
        return [found for found in ids[start : start + limit] if found.startswith(prefix)]

    # The store itself

    def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise store_closed(_MEMORY)

    def _rows(self, run_id: RunId) -> list[Row]:
        self._check_open()
        return self._runs.get(run_id, [])

    def _artifact(self, artifact_id: ArtifactId) -> tuple[ArtifactKind, bytes]:
        self._check_open()
        found = self._artifacts.get(artifact_id)
        if found is None:
            raise artifact_not_found(artifact_id)
        return found


def _listing(run_id: RunId, rows: list[Row]) -> RunListing:
    return listing(run_id, rows[0], rows[-2][2] if len(rows) > 1 else b"", rows[-1])


class _MemoryAudit:
    """The `StoreAudit` of what was held at one moment."""

    def __init__(
        self,
        runs: dict[RunId, list[Row]],
        artifacts: dict[ArtifactId, tuple[ArtifactKind, bytes]],
    ) -> None:
        self._runs = list(runs.items())
        self._artifacts = artifacts

    def counts(self) -> tuple[int, int, int]:
        events = sum(len(rows) for _, rows in self._runs)
        return len(self._runs), events, len(self._artifacts)

    def find_run(self, run_id: RunId) -> StoredRun | None:
        return next((run for run in self.runs() if run.run_id == run_id), None)

    def runs(self) -> Iterator[StoredRun]:
        for key, (run_id, _) in enumerate(self._runs):
            yield StoredRun(key, run_id)

    def events(self, run: StoredRun, after_seq: int) -> list[Row]:
        rows = self._runs[run.key][1]
        return rows[after_seq : after_seq + _ROWS]

    def artifacts(self, after: int) -> tuple[int, list[StoredArtifact]]:
        ids = list(self._artifacts)[after : after + _ROWS]
        return after + len(ids), [self._stored(artifact_id) for artifact_id in ids]

    def artifact(self, artifact_id: ArtifactId) -> StoredArtifact | None:
        return self._stored(artifact_id) if artifact_id in self._artifacts else None

    def strays(self, known: Iterable[str]) -> list[str]:  # noqa: ARG002 - there are no files
        return []

    def damage(self) -> list[str]:
        return []

    def _stored(self, artifact_id: ArtifactId) -> StoredArtifact:
        kind, data = self._artifacts[artifact_id]
        text = canonical_json_bytes(kind.model_dump(mode="json")).decode()
        return StoredArtifact(artifact_id, text, len(data), data)
