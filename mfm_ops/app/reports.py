"""What can be said about stored runs and artifacts, as plain JSON for the command line to lay out.

Reads only. The events' meaning is folded in `runtime.history`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from mfm_ops.machine.canonical import CanonicalError, Json, parse_strict
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import SettingsFailure, StorageError, StorageFailure
from mfm_ops.machine.ids import ArtifactId, IdValidationError, RunId

if TYPE_CHECKING:
    from mfm_ops.machine.config import RunManifest
    from mfm_ops.runtime.records import RunHistory
    from mfm_ops.storage.memory import MemoryStore
    from mfm_ops.storage.sqlite import SqliteStore

    AnyStore = SqliteStore | MemoryStore

__all__ = [
    "artifact",
    "collector_paused",
    "follow_events",
    "load_manifest",
    "member",
    "read_history",
    "resolve_artifact",
    "resolve_run",
    "run_events",
    "run_facts",
    "run_manifest",
]

NEWEST: Final = "last"
FOLLOW_INTERVAL_S: Final = 0.2
_SHOWN_MATCHES: Final = 5
_EVENTS_AT_ONCE: Final = 64


async def resolve_run(store: AnyStore, reference: str) -> RunId:
    """The run that an id, a unique prefix of one, or `last` names.

    Raises:
        StorageFailure: `run_not_found`.
        SettingsFailure: `run_id_ambiguous`, with some of the ids that match.
    """
    if reference == NEWEST:
        return await _newest(store)
    try:
        prefix = str(RunId(reference))
    except IdValidationError:
        prefix = reference.lower()
    if not prefix or not set(prefix) <= set("0123456789abcdef-"):
        raise _no_run(reference)
    found = await store.list_runs(limit=_SHOWN_MATCHES, prefix=prefix)
    if len(found) == 1:
        return found[0].run_id
    if not found:
        raise _no_run(reference)
    raise SettingsFailure(
        error_info(
            "run_id_ambiguous",
            "Several runs have an id that begins so.",
            prefix=prefix,
            matches=[str(run.run_id) for run in found],
        )
    )


async def _newest(store: AnyStore) -> RunId:
    """The newest run that somebody started; its children are newer."""
    from mfm_ops.runtime.history import fold

    looked_at, limit = 0, 1
    while True:
        runs = await store.list_runs(limit=limit)
        for run in runs[looked_at:]:
            opening = await store.read_range(run.run_id, 1, 2)
            if fold(run.run_id, opening).child_of is None:
                return run.run_id
        if len(runs) < limit:
            raise _no_run(NEWEST)
        looked_at, limit = limit, limit * 16


def _no_run(reference: str) -> StorageFailure:
    info = error_info("run_not_found", "There is no such run in this store.", run_id=reference)
    return StorageFailure(StorageError(NotFound=info))


async def resolve_artifact(store: AnyStore, reference: str) -> ArtifactId:
    """The artifact that an id or a unique prefix of one names.

    Raises:
        StorageFailure: `artifact_not_found`.
        SettingsFailure: `artifact_id_ambiguous`.
    """
    prefix = reference.lower()
    found = await store.find_artifacts(prefix, limit=_SHOWN_MATCHES) if prefix else []
    if len(found) == 1:
        return found[0]
    if not found:
        info = error_info(
            "artifact_not_found",
            "There is no such artifact in this store.",
            artifact_id=reference,
        )
        raise StorageFailure(StorageError(NotFound=info))
    raise SettingsFailure(
        error_info(
            "artifact_id_ambiguous",
            "Several artifacts have an id that begins so.",
            prefix=prefix,
            matches=[str(artifact_id) for artifact_id in found],
        )
    )


async def read_history(store: AnyStore, run_id: RunId) -> RunHistory:
    """The fold of all of a run's events."""
    from mfm_ops.runtime.history import fold
    from mfm_ops.storage.stream import decode

    with collector_paused():
        bodies = await store.read_raw(run_id, 1)
        # A few models at a time: a hundred thousand at once fit no cache.
        pieces = (
            decode(run_id, start + 1, bodies[start : start + _EVENTS_AT_ONCE])
            for start in range(0, len(bodies), _EVENTS_AT_ONCE)
        )
        return fold(run_id, (event for piece in pieces for event in piece))


@contextmanager
def collector_paused() -> Iterator[None]:
    """Events are trees without cycles: a growing list of them is looked through for nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


async def run_events(store: AnyStore, reference: str) -> list[bytes]:
    """The canonical bytes of all of a run's events, verified."""
    return await store.read_raw(await resolve_run(store, reference), 1)


async def follow_events(
    store: AnyStore, reference: str, show: Callable[[bytes], None], watched: Callable[[], bool]
) -> None:
    """Show events as they become durable, until the run is over or is not `watched` any more.

    A parked run is not over: somebody may resolve its effect.
    """
    import anyio

    run_id = await resolve_run(store, reference)
    seq = 0
    while watched():
        for body in await store.read_raw(run_id, seq + 1):
            seq += 1
            show(body)
            if _is_last(body):
                return
        await anyio.sleep(FOLLOW_INTERVAL_S)


def _is_last(body: bytes) -> bool:
    """Whether an event ends its run."""
    event = parse_strict(body)
    kernel = member(member(event, "event"), "Kernel")
    return isinstance(kernel, dict) and "RunCompleted" in kernel


def member(value: Json, name: str) -> Json:
    """A member of what may be an object; None where there is none."""
    return value.get(name) if isinstance(value, dict) else None


async def run_facts(store: AnyStore, reference: str) -> dict[str, Any]:
    """The facts of a run, in the order of their recording."""
    run_id = await resolve_run(store, reference)
    history = await read_history(store, run_id)
    return {
        "run_id": str(run_id),
        "facts": [
            {
                "key": str(fact.key),
                "payload_id": str(fact.payload_id),
                "request_id": fact.request_id,
                "meta": fact.meta,
            }
            for fact in history.facts.values()
        ],
    }


async def load_manifest(store: AnyStore, run_id: RunId) -> tuple[RunManifest, ArtifactId]:
    """A run's manifest and its id.

    Raises:
        RunFailure: `unsupported_format` for one that a newer version wrote.
        StorageFailure: `artifact_not_found`, `artifact_corrupt`.
    """
    from mfm_ops.runtime.manifests import load_manifest as load
    from mfm_ops.runtime.persist import Persister

    manifest_id = await _manifest_id(store, run_id)
    return await load(Persister(store), manifest_id), manifest_id


async def _manifest_id(store: AnyStore, run_id: RunId) -> ArtifactId:
    from mfm_ops.runtime.history import fold

    # The first event says it; the rest need not be read.
    return fold(run_id, await store.read_range(run_id, 1, 1)).manifest_id


async def run_manifest(store: AnyStore, reference: str) -> dict[str, Json]:
    """A run's manifest as it is stored, and its id."""
    run_id = await resolve_run(store, reference)
    manifest_id = await _manifest_id(store, run_id)
    document = parse_strict(await store.get(manifest_id))
    return {"run_id": str(run_id), "manifest_id": str(manifest_id), "manifest": document}


async def artifact(store: AnyStore, reference: str) -> tuple[dict[str, Any], bytes]:
    """What is known of an artifact, its JSON included if it is JSON, and its bytes."""
    artifact_id = await resolve_artifact(store, reference)
    data = await store.get(artifact_id)
    kind = await store.artifact_kind(artifact_id)
    described: dict[str, Any] = {
        "artifact_id": str(artifact_id),
        "kind": kind.model_dump(mode="json"),
        "size_bytes": len(data),
    }
    try:
        described["json"] = parse_strict(data)
    except CanonicalError:
        import base64

        described["base64"] = base64.b64encode(data).decode()
    return described, data
