"""What the engine asks of a store: growing events, artifacts by hash (seed: stores).

A `StagingArtifactStore` is ours: it lets an artifact become durable together with the events that
name it. How a store keeps its promises is left to `storage`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, runtime_checkable

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.events import EventEnvelope
from mfm_ops.machine.ids import ArtifactId, OpId, RunId

__all__ = [
    "Adoption",
    "ArtifactKind",
    "ArtifactStore",
    "EventStore",
    "RunCatalog",
    "RunHead",
    "RunListing",
    "StagingArtifactStore",
    "StoreAudit",
    "StoredArtifact",
    "StoredRun",
    "TransferStore",
]


class RunHead(NamedTuple):
    """The last event of a run: its sequence number and the running hash up to it.

    An empty stream has `seq` 0 and `running_hash` "" (the contract, section 4).
    """

    seq: int
    running_hash: str


class EventStore(Protocol):
    """Append-only event streams with optimistic concurrency (seed: stores::EventStore)."""

    async def head_seq(self, run_id: RunId) -> int:
        """The sequence number of the run's last event; 0 when there is none."""

    async def append(
        self, run_id: RunId, expected_seq: int, events: Sequence[EventEnvelope]
    ) -> int:
        """Append `events` durably, all or none, and return the new head.

        The envelopes' `run_id` must be `run_id` and their `seq` must go on from `expected_seq`.
        An empty list appends nothing. Artifacts staged before the call are durable when it
        returns.

        Raises:
            StorageFailure: `Concurrency` when the head is not `expected_seq`; `Other` when the
                disk fails, and then nothing was appended.
        """

    async def read_range(
        self, run_id: RunId, from_seq: int, to_seq: int | None = None
    ) -> list[EventEnvelope]:
        """Events `from_seq` to `to_seq`, both included; to the head when `to_seq` is None.

        A range outside the stream is empty where it lies outside. Each event's running hash is
        verified against its predecessor's.

        Raises:
            StorageFailure: `Corruption` when a hash, a sequence number or a byte is wrong;
                `Other` with `unsupported_format` for content that a newer version wrote.
        """


class ArtifactStore(Protocol):
    """Immutable bytes under their SHA-256 (seed: stores::ArtifactStore)."""

    async def put(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        """Store `data` durably and return its id; storing the same bytes again changes nothing.

        The kind of the first put stays.
        """

    async def get(self, artifact_id: ArtifactId) -> bytes:
        """The bytes, verified against their id.

        Raises:
            StorageFailure: `NotFound`; `Corruption` when the bytes do not hash to their id.
        """

    async def exists(self, artifact_id: ArtifactId) -> bool:
        """Whether the artifact is there, without reading its bytes."""


@runtime_checkable
class StagingArtifactStore(ArtifactStore, Protocol):
    """An artifact store that shares its commits with an event store; ours."""

    def stage(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        """Hand `data` over at once and without IO; durable with the next append that returns.

        Readable through this store immediately. A process that dies before the append leaves no
        trace of it, which is safe since no event can name it yet. Callers keep to small
        artifacts (`stage_limit_bytes`); larger ones go through `stage_large`.
        """

    async def stage_large(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        """As `stage`, for data of any size: the IO that it needs is done, and no commit made."""

    @property
    def stage_limit_bytes(self) -> int:
        """The largest artifact that `stage` takes."""


class RunListing(NamedTuple):
    """One line of a run list, newest insertion first."""

    run_id: RunId
    op_id: OpId | None
    head_seq: int
    started_ts_millis: int | None
    last_event: str


@runtime_checkable
class RunCatalog(Protocol):
    """Which runs a store holds; ours."""

    async def list_runs(self, *, limit: int | None = None, prefix: str = "") -> list[RunListing]:
        """Runs whose id starts with `prefix`, the newest insertion first."""

    async def head(self, run_id: RunId) -> RunHead:
        """The run's last sequence number and running hash."""


class Adoption(NamedTuple):
    """Events of a run that were stored elsewhere: their bytes, which go on from `expected_seq`.

    The last one's running hash must be `running_hash`, 64 hexadecimal digits.
    """

    run_id: RunId
    expected_seq: int
    bodies: Iterable[bytes]
    running_hash: str


class StoredRun(NamedTuple):
    """A run as an audit finds it: a key for `events`, and its id, which may be anything."""

    key: int
    run_id: str


class StoredArtifact(NamedTuple):
    """An artifact as an audit finds it; whatever is damaged may be of any type.

    `data` are its bytes, or yields them in pieces and raises OSError where they cannot be read.
    `kind` is canonical JSON.
    """

    artifact_id: str
    kind: str
    size: int
    data: bytes | Iterable[bytes]


class StoreAudit(Protocol):
    """A store as it lies there at one moment, nothing of it checked; ours.

    All methods block briefly. A place that cannot be read raises `StorageFailure`, and reading goes
    on behind it.
    """

    def counts(self) -> tuple[int, int, int]:
        """How many runs, events and artifacts there are."""

    def find_run(self, run_id: RunId) -> StoredRun | None:
        """The run with this id."""

    def runs(self) -> Iterator[StoredRun]:
        """All runs, the oldest first."""

    def events(self, run: StoredRun, after_seq: int) -> list[tuple[int, bytes, bytes]]:
        """The next `(seq, body, running_hash)` of a run, in their order; [] at the end."""

    def artifacts(self, after: int) -> tuple[int, list[StoredArtifact]]:
        """The next artifacts, and where to go on; [] at the end. Begins after 0."""

    def artifact(self, artifact_id: ArtifactId) -> StoredArtifact | None:
        """One artifact."""

    def strays(self, known: Iterable[str]) -> list[str]:
        """Files of the store's that hold no artifact of those `known`; they do no harm."""

    def damage(self) -> list[str]:
        """What the backend itself finds wrong, in its own words; may run in another thread."""


@runtime_checkable
class TransferStore(StagingArtifactStore, RunCatalog, Protocol):
    """What moving runs between stores takes; ours."""

    async def read_raw(
        self, run_id: RunId, from_seq: int, to_seq: int | None = None
    ) -> list[bytes]:
        """The stored bytes of events, verified and chosen as by `EventStore.read_range`."""

    async def runs_naming_child(self, child: RunId) -> list[RunId]:
        """Runs with an event that has `child` as its `child_run_id`, the oldest first."""

    async def adopt(self, runs: Sequence[Adoption]) -> None:
        """Append the events of all `runs` durably, all or none, byte for byte as they are.

        Whether they are canonical events of their runs, the caller has checked. Artifacts staged
        before the call are durable when it returns. Memory does not grow with the events.

        Raises:
            StorageFailure: `Concurrency` when a head is not where the caller thought; `Corruption`
                when the events do not end with the running hash that was announced.
        """

    def audit(self) -> AbstractContextManager[StoreAudit]:
        """The store as it is at this moment, for as long as the context is open."""
