"""A new run that keeps what another one completed, up to a state, and does the rest again.

The new stream tells the kept states as the old one did; the engine resumes it as any other. Which
plan and manifest the new run has is left to the caller.
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import Json, canonical_json_bytes
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import RunManifest
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.errors import ContextFailure, RunError, RunFailure
from mfm_ops.machine.events import (
    DOMAIN_EVENT_FACT_RECORDED,
    EVENT_FORKED_FROM,
    DomainEvent,
    Event,
    EventEnvelope,
    KernelEvent,
    RunStarted,
)
from mfm_ops.machine.ids import ArtifactId, RunId, StateId
from mfm_ops.machine.plan import ExecutionPlan
from mfm_ops.runtime.context import Delta, Snapshot
from mfm_ops.runtime.contexts import RunContexts
from mfm_ops.runtime.fact_keys import moved_key
from mfm_ops.runtime.history import fold
from mfm_ops.runtime.persist import Persister, Refused
from mfm_ops.runtime.records import Fork, RunHistory, StateRecord, StateStatus
from mfm_ops.runtime.scheduler import Schedule
from mfm_ops.runtime.sources import Sources

__all__ = ["ForkRun", "Forked", "fork_run", "load_overrides"]

OVERRIDES_KIND = ArtifactKind.other("ForkOverrides")


class ForkRun(NamedTuple):
    """What is to be forked: from which state on, with which context values changed for it.

    `manifest` and `plan` are the new run's: the op as it is now.
    """

    source: RunId
    state_id: StateId
    overrides: Mapping[str, Json]
    manifest: RunManifest
    plan: ExecutionPlan
    run_id: RunId


class Forked(NamedTuple):
    """A run that was forked: its manifest, and how many states it has kept."""

    manifest_id: ArtifactId
    kept: int


async def fork_run(stores: Stores, fork: ForkRun, sources: Sources) -> Forked:
    """Store the new run up to the fork. Resuming it does the rest.

    A completed state is kept where the plan still has it, all its ancestors are kept, and it
    would start from the very context that it did start from.

    Raises:
        RunFailure: `fork_invalid`, `secrets_detected`, `run_exists`; nothing is stored then.
        StorageFailure: `run_not_found`; the store failed.
    """
    persister = Persister(stores.artifacts)
    events = await stores.events.read_range(fork.source, 1)
    history = fold(fork.source, events)
    schedule = Schedule(fork.plan.graph)
    if fork.state_id not in {node.id for node in fork.plan.graph.states}:
        raise _invalid(fork, "unknown_state")
    initial = Snapshot.of_bytes(await persister.load_bytes(history.initial_snapshot_id))
    earlier = await load_overrides(persister, history.forked_from)
    contexts = RunContexts(schedule, initial, persister, history.states, earlier)
    kept = await _kept(fork, schedule, history, contexts)
    contexts = RunContexts(schedule, initial, persister, kept, earlier)
    overrides = await _overrides(fork, contexts, earlier, persister)
    try:
        manifest_id = await persister.json(
            ArtifactKind.Manifest, fork.manifest.model_dump(mode="json")
        )
    except Refused as refused:
        raise RunFailure(RunError(Other=refused.info)) from None
    said: dict[str, Json] = {
        "run_id": str(fork.source),
        "state_id": str(fork.state_id),
        "overrides_id": None if overrides is None else str(overrides),
        "kept": len(kept),
    }
    started = RunStarted(
        op_id=fork.plan.op_id,
        manifest_id=manifest_id,
        initial_snapshot_id=history.initial_snapshot_id,
    )
    now = sources.now_millis()
    opening = [
        EventEnvelope(run_id=fork.run_id, seq=1, ts_millis=now, event=event)
        for event in (
            Event(Kernel=KernelEvent(RunStarted=started)),
            Event(Domain=DomainEvent(name=EVENT_FORKED_FROM, payload=said)),
        )
    ]
    copies = [_copy(e, fork) for e in events if _owner(e) in kept]
    stream = [
        envelope.model_copy(update={"seq": seq})
        for seq, envelope in enumerate([*opening, *copies], start=1)
    ]
    await stores.events.append(fork.run_id, 0, stream)
    return Forked(manifest_id, len(kept))


async def load_overrides(persister: Persister, fork: Fork | None) -> Mapping[StateId, Delta]:
    """The context values that a forked run changes, by the state that it changes them for."""
    if fork is None or fork.overrides_id is None:
        return {}
    stored = cast(dict[str, dict[str, Json]], await persister.load_json(fork.overrides_id))
    return {
        StateId(state): {key: canonical_json_bytes(value) for key, value in changed.items()}
        for state, changed in stored.items()
    }


async def _kept(
    fork: ForkRun, schedule: Schedule, history: RunHistory, contexts: RunContexts
) -> dict[StateId, StateRecord]:
    kept: dict[StateId, StateRecord] = {}
    for state_id in schedule.order:
        record = history.states.get(state_id)
        if (
            state_id != fork.state_id
            and record is not None
            and record.status is StateStatus.completed
            and all(parent in kept for parent in schedule.parents(state_id))
            and await _starts_as_before(contexts, state_id, record.base_snapshot_id)
        ):
            kept[state_id] = record
    return kept


async def _starts_as_before(contexts: RunContexts, state_id: StateId, base_id: ArtifactId) -> bool:
    try:
        return await contexts.base_id_of(state_id) == base_id
    except ContextFailure:
        return False


async def _overrides(
    fork: ForkRun,
    contexts: RunContexts,
    earlier: Mapping[StateId, Delta],
    persister: Persister,
) -> ArtifactId | None:
    """The artifact of all changed values: those of earlier forks, and the new ones."""
    changed: dict[str, dict[str, Json]] = {
        str(state): Snapshot(cast(dict[str, bytes], delta)).values()
        for state, delta in earlier.items()
    }
    if fork.overrides:
        try:
            base = await contexts.base_of(fork.state_id)
        except (ContextFailure, KeyError):
            raise _invalid(fork, "ancestors_not_completed") from None
        for key in fork.overrides:
            # A key that nobody wrote would change nothing, and nobody would notice.
            if key not in base.fragments:
                raise _invalid(fork, "unknown_key", key)
        changed.setdefault(str(fork.state_id), {}).update(fork.overrides)
    if not changed:
        return None
    try:
        return await persister.json(
            OVERRIDES_KIND, cast(Json, changed), invalid_code="context_serialize_failed"
        )
    except Refused as refused:
        raise RunFailure(RunError(Other=refused.info)) from None


def _owner(envelope: EventEnvelope) -> StateId | None:
    """Whose attempt an event belongs to; None for what is the run's own."""
    if envelope.event.variant == "Domain":
        return envelope.state_id
    return getattr(envelope.event.Kernel.value, "state_id", None)


def _copy(envelope: EventEnvelope, fork: ForkRun) -> EventEnvelope:
    """The event as the new run tells it; the clock's and random facts bear the run's id in keys."""
    event = envelope.event
    if event.variant == "Domain" and event.Domain.name == DOMAIN_EVENT_FACT_RECORDED:
        payload = cast(dict[str, Json], event.Domain.payload)
        key = moved_key(str(payload["key"]), fork.source, fork.run_id)
        moved = event.Domain.model_copy(update={"payload": {**payload, "key": key}})
        event = Event(Domain=moved)
    return envelope.model_copy(update={"run_id": fork.run_id, "event": event})


def _invalid(fork: ForkRun, reason: str, key: str | None = None) -> RunFailure:
    details: dict[str, Json] = {"run_id": fork.source, "state_id": fork.state_id, "reason": reason}
    if key is not None:
        details["key"] = key
    return RunFailure(
        RunError(Other=error_info("fork_invalid", "the run cannot be forked so", **details))
    )
