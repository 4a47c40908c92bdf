"""The default store: events and small artifacts in one SQLite file, large artifacts beside it.

Several processes may use one file at a time. Opening is in `sqlite_open`, writing in
`sqlite_commit` and `sqlite_writer`, reading in `sqlite_reader`, what a stored event is in
`stream`; this module puts them together.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import apsw

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import artifact_id_for_bytes, canonical_json_bytes
from mfm_ops.machine.events import EventEnvelope
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.machine.stores import Adoption, RunHead, RunListing, StoreAudit
from mfm_ops.storage.blobs import Blobs
from mfm_ops.storage.failures import (
    artifact_corrupt,
    artifact_not_found,
    concurrency,
    store_closed,
)
from mfm_ops.storage.sqlite_commit import CommitQueue
from mfm_ops.storage.sqlite_errors import refused
from mfm_ops.storage.sqlite_open import Place, connect, prepare
from mfm_ops.storage.sqlite_reader import Reader
from mfm_ops.storage.sqlite_writer import Append, NewArtifact, Writer
from mfm_ops.storage.stream import collector_paused, decode, encode

__all__ = ["SqliteStore", "open_sqlite_store"]

_INLINE_BYTES: Final = 64 * 1024
# Hashing more than this takes longer than handing it to a thread.
_HASH_HERE_BYTES: Final = 256 * 1024
# So many events are read before the loop gets a turn.
_EVENTS_A_TURN: Final = 512
_HEX: Final = frozenset("0123456789abcdef")


def open_sqlite_store(
    path: Path | str,
    *,
    create: bool = True,
    read_only: bool = False,
    allow_network: bool = False,
) -> "SqliteStore":
    """Open the store in the file `path`; without it and with `create`, make one (mode 0600).

    An older format is migrated. A `read_only` store is never changed, and opens where nobody may
    write too. On a network file system SQLite's log is unsafe: a store there is refused unless
    `allow_network` is given, and then `warnings` tell of it. Doubts that are no reason to refuse
    stand in `warnings` as sentences.

    Raises:
        StorageFailure: `store_unavailable`, `store_read_only`, `store_not_mfm`,
            `unsupported_format`, `store_corrupt`, `store_busy`, `store_full`, `store_io_error`.
    """
    place, connection = prepare(
        Path(path), create_missing=create, read_only=read_only, allow_network=allow_network
    )
    return SqliteStore(place, connection)


class SqliteStore:
    """An EventStore, StagingArtifactStore and RunCatalog in a file; see `open_sqlite_store`.

    Belongs to one event loop. A cancelled append was either withdrawn, or had begun and returns
    as if nothing had happened; the cancellation then takes effect at the caller's next step.
    """

    def __init__(self, place: Place, connection: apsw.Connection) -> None:
        self._place = place
        self._blobs = Blobs(place.path, place.name)
        open_another = partial(connect, place)
        self._reader = Reader(place.name, open_another)
        self._writer = Writer(place.name, open_another, place.check)
        if place.read_only:
            self._reader.connection = connection
        else:
            self._writer.connection = connection
            self._blobs.sweep()
        self._queue = CommitQueue(self._writer)
        self._closed = False

    @property
    def path(self) -> Path:
        """The store's real file."""
        return self._place.path

    @property
    def read_only(self) -> bool:
        """Whether the store refuses writes."""
        return self._place.read_only

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is doubtful about this store's place, as sentences for the operator."""
        return self._place.warnings

    @property
    def commits(self) -> int:
        """How many durable commits this object made."""
        return self._writer.commits

    # Events

    async def head_seq(self, run_id: RunId) -> int:
        return (await self.head(run_id)).seq

    async def head(self, run_id: RunId) -> RunHead:
        self._check_open()
        return self._reader.head(run_id)

    async def append(
        self, run_id: RunId, expected_seq: int, events: Sequence[EventEnvelope]
    ) -> int:
        self._check_writable()
        bodies = encode(run_id, expected_seq, events)
        if bodies or self._queue.has_staged:
            await self._queue.commit(Append(run_id, expected_seq, bodies))
        else:
            head_seq = self._reader.head(run_id).seq
            if head_seq != expected_seq:
                raise concurrency(run_id, expected_seq, head_seq)
        return expected_seq + len(bodies)

    async def read_range(
        self, run_id: RunId, from_seq: int, to_seq: int | None = None
    ) -> list[EventEnvelope]:
        events: list[EventEnvelope] = []
        with collector_paused():
            async for seq, bodies in self._chunks(run_id, from_seq, to_seq):
                events += decode(run_id, seq, bodies)
        return events

    async def read_raw(
        self, run_id: RunId, from_seq: int, to_seq: int | None = None
    ) -> list[bytes]:
        """The canonical bytes of events `from_seq` to `to_seq`, verified as in `read_range`."""
        raw: list[bytes] = []
        async for _, bodies in self._chunks(run_id, from_seq, to_seq):
            raw += bodies
        return raw

    async def iter_events(
        self, run_id: RunId, from_seq: int = 1, to_seq: int | None = None
    ) -> AsyncIterator[EventEnvelope]:
        """The events of `read_range` one after the other, without holding them all."""
        async for seq, bodies in self._chunks(run_id, from_seq, to_seq):
            for event in decode(run_id, seq, bodies):
                yield event

    async def list_runs(self, *, limit: int | None = None, prefix: str = "") -> list[RunListing]:
        self._check_open()
        return self._reader.listings(limit, prefix)

    async def runs_naming_child(self, child: RunId) -> list[RunId]:
        self._check_open()
        return self._reader.runs_naming_child(child)

    async def adopt(self, runs: Sequence[Adoption]) -> None:
        import anyio

        from mfm_ops.storage.sqlite_adopt import adopt

        self._check_writable()
        if self._queue.has_staged:
            await self._queue.commit(None)
        work = partial(adopt, self._place.name, partial(connect, self._place), runs)
        await anyio.to_thread.run_sync(work)

    @contextmanager
    def audit(self) -> Iterator[StoreAudit]:
        from mfm_ops.storage.sqlite_audit import SqliteAudit

        self._check_open()
        audit = SqliteAudit(self._place.name, partial(connect, self._place), self._blobs)
        try:
            yield audit
        finally:
            audit.close()

    async def _chunks(
        self, run_id: RunId, from_seq: int, to_seq: int | None
    ) -> AsyncIterator[tuple[int, list[bytes]]]:
        from anyio.lowlevel import checkpoint

        self._check_open()
        head_seq = self._reader.head(run_id).seq
        last = head_seq if to_seq is None else min(to_seq, head_seq)
        seq = max(from_seq, 1)
        # Each piece is a read of its own: a long one would keep the log from being emptied.
        previous: bytes | None = None
        while seq <= last:
            upto = min(seq + _EVENTS_A_TURN - 1, last)
            bodies, previous = self._reader.verified(run_id, seq, upto, previous)
            yield seq, bodies
            seq = upto + 1
            if seq <= last:
                await checkpoint()
                self._check_open()

    # Artifacts

    @property
    def stage_limit_bytes(self) -> int:
        return _INLINE_BYTES

    def stage(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        self._check_writable()
        if len(data) > _INLINE_BYTES:
            raise ValueError("the artifact is larger than stage_limit_bytes; stage_large it")
        artifact_id = artifact_id_for_bytes(data)
        self._queue.stage(NewArtifact(artifact_id, _kind_text(kind), len(data), bytes(data)))
        return artifact_id

    async def put(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        artifact_id = await self.stage_large(kind, data)
        # Where the commit fails it stays staged: another put of these bytes may wait for it.
        if self._queue.staged(artifact_id) is not None:
            await self._queue.commit(None)
        return artifact_id

    async def stage_large(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        self._check_writable()
        artifact_id = await self._digest(data)
        body: bytes | None = bytes(data)
        waiting = self._queue.staged(artifact_id) is not None
        if not waiting and await self.exists(artifact_id):
            return artifact_id
        if len(data) > _INLINE_BYTES:
            import anyio

            await anyio.to_thread.run_sync(self._blobs.write, artifact_id, data)
            self._check_writable()
            body = None
        self._queue.stage(NewArtifact(artifact_id, _kind_text(kind), len(data), body))
        return artifact_id

    async def get(self, artifact_id: ArtifactId) -> bytes:
        self._check_open()
        found = self._queue.staged(artifact_id) or self._reader.artifact(artifact_id)
        if found is None:
            raise artifact_not_found(artifact_id)
        if found.body is None:
            import anyio

            return await anyio.to_thread.run_sync(self._blobs.read, artifact_id, found.size)
        if artifact_id_for_bytes(found.body) != artifact_id:
            raise artifact_corrupt(artifact_id)
        return found.body

    async def exists(self, artifact_id: ArtifactId) -> bool:
        self._check_open()
        if self._queue.staged(artifact_id) is not None:
            return True
        row = self._reader.artifact(artifact_id, with_body=False)
        return row is not None and (row.body is not None or self._blobs.has(artifact_id, row.size))

    async def artifact_kind(self, artifact_id: ArtifactId) -> ArtifactKind:
        """The kind under which the artifact was first stored; `NotFound` if it was not."""
        self._check_open()
        # The row first: its kind is older than that of what is staged.
        row = self._reader.artifact(artifact_id, with_body=False)
        found = row or self._queue.staged(artifact_id)
        if found is None:
            raise artifact_not_found(artifact_id)
        try:
            return ArtifactKind.model_validate_json(found.kind)
        except ValueError:
            raise artifact_corrupt(artifact_id) from None

    async def find_artifacts(self, prefix: str, limit: int = 2) -> list[ArtifactId]:
        """Up to `limit` ids that start with `prefix`, in their order."""
        self._check_open()
        if len(prefix) > 64 or not _HEX.issuperset(prefix):
            return []
        staged = {found for found in self._queue.staged_ids() if found.startswith(prefix)}
        return sorted(staged.union(self._reader.artifact_ids(prefix, limit)))[:limit]

    async def _digest(self, data: bytes) -> ArtifactId:
        if len(data) <= _HASH_HERE_BYTES:
            return artifact_id_for_bytes(data)
        import anyio

        return await anyio.to_thread.run_sync(artifact_id_for_bytes, data)

    # The store itself

    def close(self) -> None:
        """Make durable what is staged, then close the file; blocks for at most a commit or two.

        Raises:
            StorageFailure: what was staged could not be stored; the store is closed all the same.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._queue.close()
        finally:
            # The writer last: whoever closes the file last empties the log into it.
            self._reader.close()
            self._writer.close()

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
            raise store_closed(self._place.name)

    def _check_writable(self) -> None:
        self._check_open()
        if self._place.read_only:
            raise refused("store_read_only", self._place.name)


def _kind_text(kind: ArtifactKind) -> str:
    if isinstance(kind.root, str):
        return f'"{kind.root}"'
    return canonical_json_bytes({kind.variant: kind.value}).decode()
