"""The storage failures that every backend raises alike, each made in one place.

What the codes mean is in `machine.codes`; what a disk or SQLite says is read in `sqlite_errors`.
"""

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import StorageError, StorageFailure
from mfm_ops.machine.ids import ArtifactId, RunId

__all__ = [
    "append_invalid",
    "artifact_corrupt",
    "artifact_not_found",
    "concurrency",
    "event_corrupt",
    "store_closed",
    "unsupported_event",
]


def concurrency(run_id: RunId, expected_seq: int, head_seq: int) -> StorageFailure:
    """The run's head is not where the caller thought."""
    info = error_info(
        "concurrency",
        "the run's head is not the expected one",
        run_id=str(run_id),
        expected_seq=expected_seq,
        head_seq=head_seq,
    )
    return StorageFailure(StorageError(Concurrency=info))


def append_invalid(run_id: RunId, reason: str) -> StorageFailure:
    """The events handed to `append` are not a continuation of the run."""
    info = error_info(
        "append_invalid",
        "the events do not go on from the expected sequence number",
        run_id=str(run_id),
        reason=reason,
    )
    return StorageFailure(StorageError(Other=info))


def event_corrupt(run_id: RunId, seq: int, reason: str) -> StorageFailure:
    """A stored event is not what was appended; `reason` says which check failed."""
    info = error_info(
        "event_corrupt", "a stored event was changed", run_id=str(run_id), seq=seq, reason=reason
    )
    return StorageFailure(StorageError(Corruption=info))


def unsupported_event(seq: int) -> StorageFailure:
    """A well-kept event says something that this version does not know."""
    info = error_info(
        "unsupported_format", "an event has content that this version does not know", seq=seq
    )
    return StorageFailure(StorageError(Other=info))


def artifact_not_found(artifact_id: ArtifactId) -> StorageFailure:
    """No such artifact."""
    info = error_info(
        "artifact_not_found",
        "the store does not hold this artifact",
        artifact_id=str(artifact_id),
    )
    return StorageFailure(StorageError(NotFound=info))


def artifact_corrupt(artifact_id: ArtifactId) -> StorageFailure:
    """The artifact's bytes are gone or are others."""
    info = error_info(
        "artifact_corrupt",
        "the stored bytes do not hash to their id",
        artifact_id=str(artifact_id),
    )
    return StorageFailure(StorageError(Corruption=info))


def store_closed(path: str) -> StorageFailure:
    """The store was closed before."""
    info = error_info("store_unavailable", "the store is closed", path=path, reason="closed")
    return StorageFailure(StorageError(Other=info))
