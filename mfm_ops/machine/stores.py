"""What the engine asks of a store: growing events, artifacts by hash (seed: stores).

A `StagingArtifactStore` is ours: it lets an artifact become durable together with the events that
name it. How a store keeps its promises is left to `storage`.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.events import EventEnvelope
from mfm_ops.machine.ids import ArtifactId, OpId, RunId

__all__ = [
    "ArtifactKind",
    "ArtifactStore",
    "EventStore",
    "RunCatalog",
    "RunHead",
    "RunListing",
    "StagingArtifactStore",
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
        artifacts (`stage_limit_bytes`); larger ones go through `put`.
        """

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
