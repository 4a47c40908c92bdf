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
    "export_corrupt",
    "export_not_mfm",
    "export_too_large",
    "history_broken",
    "import_conflict",
    "run_missing",
    "secret_refused",
    "store_closed",
    "store_moved",
    "unsupported_event",
    "unsupported_export",
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


def store_moved(path: str) -> StorageFailure:
    """Another file, or none, is now where the store's was when it was opened."""
    info = error_info(
        "store_unavailable",
        "the store's file was removed or replaced while it was in use",
        path=path,
        reason="moved",
    )
    return StorageFailure(StorageError(Other=info))


def export_corrupt(place: str, offset: int, reason: str, **where: str | int) -> StorageFailure:
    """A member of an export is not what was written; `offset` is where in the file."""
    info = error_info(
        "export_corrupt",
        "the export is damaged",
        place=place,
        offset=offset,
        reason=reason,
        **where,
    )
    return StorageFailure(StorageError(Corruption=info))


def export_not_mfm(place: str, reason: str) -> StorageFailure:
    """The file does not begin as an export does."""
    info = error_info(
        "export_not_mfm", "the file is no export", place=place, offset=0, reason=reason
    )
    return StorageFailure(StorageError(Other=info))


def export_too_large(place: str, limit_bytes: int) -> StorageFailure:
    """One member is larger than an export may hold."""
    info = error_info(
        "export_too_large",
        "something is larger than an export may hold",
        place=place,
        limit_bytes=limit_bytes,
    )
    return StorageFailure(StorageError(Other=info))


def unsupported_export(found: int | None, supported: int) -> StorageFailure:
    """The export has another form than this version's."""
    info = error_info(
        "unsupported_format",
        "the export was written by another version",
        found=found,
        supported=supported,
    )
    return StorageFailure(StorageError(Other=info))


def import_conflict(run_id: RunId, seq: int) -> StorageFailure:
    """The store has another history of the run; `seq` is the first event that differs."""
    info = error_info(
        "import_conflict",
        "the store holds another history of this run",
        run_id=str(run_id),
        seq=seq,
    )
    return StorageFailure(StorageError(Other=info))


def history_broken(run_id: RunId, seq: int, reason: str) -> StorageFailure:
    """The events are whole, and one breaks a rule of the stream."""
    info = error_info(
        "history_invalid",
        "the event stream breaks a rule of its kind",
        run_id=str(run_id),
        seq=seq,
        reason=reason,
    )
    return StorageFailure(StorageError(Corruption=info))


def run_missing(run_id: RunId) -> StorageFailure:
    """No such run."""
    info = error_info("run_not_found", "there is no such run", run_id=str(run_id))
    return StorageFailure(StorageError(NotFound=info))


def secret_refused(place: str, pointer: str, rule: str) -> StorageFailure:
    """Something from outside looks like a secret; `pointer` is the place within `place`."""
    info = error_info(
        "secrets_detected",
        "a value that looks like a secret was not stored",
        pointer=f"{place} {pointer}".rstrip(),
        rule=rule,
    )
    return StorageFailure(StorageError(Other=info))
