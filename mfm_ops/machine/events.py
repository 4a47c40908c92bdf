"""The event stream's vocabulary: kernel events, domain events and their envelope (seed: events).

Kernel events are a closed set and decide where a run stands; how they fold is left to
`runtime.history`.
"""

from enum import StrEnum
from typing import Self

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.errors import StateError
from mfm_ops.machine.ids import ArtifactId, FactKey, OpId, OpPath, RunId, StateId
from mfm_ops.machine.wire import (
    MAX_SAFE_INTEGER,
    U32,
    U64,
    JsonValue,
    Variants,
    Wire,
    optional_extension,
    variant,
)

__all__ = [
    "ArtifactWritten",
    "ChildOf",
    "ChildRunCompleted",
    "ChildRunSpawned",
    "DOMAIN_EVENT_ARTIFACT_WRITTEN",
    "DOMAIN_EVENT_CHILD_RUN_COMPLETED",
    "DOMAIN_EVENT_CHILD_RUN_SPAWNED",
    "DOMAIN_EVENT_FACT_RECORDED",
    "DOMAIN_EVENT_OP_BOUNDARY",
    "DomainEvent",
    "ENGINE_EVENT_PREFIX",
    "EVENT_CANCEL_REQUESTED",
    "EVENT_CHILD_OF",
    "EVENT_CONTEXT_CONFLICT",
    "EVENT_DEADLINE_EXCEEDED",
    "EVENT_DRIVER",
    "EVENT_DRIVER_STOPPED",
    "EVENT_EFFECT_RESOLVED",
    "EVENT_EFFECT_UNKNOWN",
    "EVENT_FORKED_FROM",
    "EVENT_IO_INTENT",
    "EVENT_IO_REFUSED",
    "Event",
    "EventEnvelope",
    "FactRecorded",
    "KernelEvent",
    "OpBoundary",
    "RunCompleted",
    "RunStarted",
    "RunStatus",
    "StateCompleted",
    "StateEntered",
    "StateFailed",
    "is_engine_owned",
]

DOMAIN_EVENT_FACT_RECORDED = "fact_recorded"
DOMAIN_EVENT_ARTIFACT_WRITTEN = "artifact_written"
DOMAIN_EVENT_OP_BOUNDARY = "op_boundary"
DOMAIN_EVENT_CHILD_RUN_SPAWNED = "child_run_spawned"
DOMAIN_EVENT_CHILD_RUN_COMPLETED = "child_run_completed"

ENGINE_EVENT_PREFIX = "mfm."
EVENT_CONTEXT_CONFLICT = "mfm.context_conflict"
EVENT_DEADLINE_EXCEEDED = "mfm.deadline_exceeded"
EVENT_DRIVER = "mfm.driver"
EVENT_DRIVER_STOPPED = "mfm.driver_stopped"
EVENT_IO_INTENT = "mfm.io_intent"
EVENT_IO_REFUSED = "mfm.io_refused"
EVENT_EFFECT_UNKNOWN = "mfm.effect_unknown"
EVENT_EFFECT_RESOLVED = "mfm.effect_resolved"
EVENT_CANCEL_REQUESTED = "mfm.cancel_requested"
EVENT_CHILD_OF = "mfm.child_of"
EVENT_FORKED_FROM = "mfm.forked_from"


def is_engine_owned(name: str) -> bool:
    """Whether only the engine may write a domain event of this name (the contract, section 4).

    >>> is_engine_owned("fact_recorded"), is_engine_owned("mfm.driver"), is_engine_owned("saved")
    (True, True, False)
    """
    return name == DOMAIN_EVENT_FACT_RECORDED or name.startswith(
        (ENGINE_EVENT_PREFIX, "child_run_")
    )


class RunStatus(StrEnum):
    """How a run ended (seed: events::RunStatus)."""

    Completed = "Completed"
    Failed = "Failed"
    Cancelled = "Cancelled"


class RunStarted(Wire):
    """A run begins; the first event of every stream."""

    op_id: OpId
    manifest_id: ArtifactId
    initial_snapshot_id: ArtifactId


class StateEntered(Wire):
    """An attempt begins; attempts count from 0 and start from `base_snapshot_id`."""

    state_id: StateId
    attempt: U32
    base_snapshot_id: ArtifactId


class StateCompleted(Wire):
    """An attempt succeeded; its snapshot is the checkpoint."""

    state_id: StateId
    context_snapshot_id: ArtifactId


class StateFailed(Wire):
    """An attempt failed; the snapshot is for diagnosis and never a place to go on from."""

    state_id: StateId
    error: StateError
    failure_snapshot_id: ArtifactId | None = None


class RunCompleted(Wire):
    """The run is over."""

    status: RunStatus
    final_snapshot_id: ArtifactId | None = None


# A class body sees its own fields first, so a variant cannot be annotated with its own name.
_RunStarted = RunStarted
_StateEntered = StateEntered
_StateCompleted = StateCompleted
_StateFailed = StateFailed
_RunCompleted = RunCompleted


class KernelEvent(Variants):
    """What recovery needs, always written (seed: events::KernelEvent)."""

    RunStarted: _RunStarted = variant()
    StateEntered: _StateEntered = variant()
    StateCompleted: _StateCompleted = variant()
    StateFailed: _StateFailed = variant()
    RunCompleted: _RunCompleted = variant()

    @classmethod
    def entered(cls, state_id: StateId, attempt: int, base_snapshot_id: ArtifactId) -> Self:
        """A `StateEntered`."""
        entered = _StateEntered.of_valid(
            state_id=state_id, attempt=attempt, base_snapshot_id=base_snapshot_id
        )
        return cls.of_valid(StateEntered=entered)

    @classmethod
    def completed(cls, state_id: StateId, context_snapshot_id: ArtifactId) -> Self:
        """A `StateCompleted`."""
        completed = _StateCompleted.of_valid(
            state_id=state_id, context_snapshot_id=context_snapshot_id
        )
        return cls.of_valid(StateCompleted=completed)


class DomainEvent(Wire):
    """What an op or the engine has to say; large payloads go by `payload_ref` (seed: events)."""

    name: str
    payload: JsonValue
    payload_ref: ArtifactId | None = None


class Event(Variants):
    """A kernel or a domain event (seed: events::Event)."""

    Kernel: KernelEvent = variant()
    Domain: DomainEvent = variant()


class EventEnvelope(Wire):
    """One stored event (seed: events::EventEnvelope).

    `ts_millis` is for display only. `state_id` and `attempt` are ours: in a parallel run they say
    whose a domain event is.
    """

    run_id: RunId
    seq: U64
    ts_millis: U64 | None = None
    event: Event
    state_id: StateId | None = optional_extension()
    attempt: U32 | None = optional_extension()

    @classmethod
    def now(
        cls,
        run_id: RunId,
        seq: int,
        ts_millis: int,
        event: Event,
        *,
        state_id: StateId | None,
        attempt: int | None,
    ) -> Self:
        """The envelope of valid parts but for the time: a clock is the application's.

        Raises:
            pydantic.ValidationError: nobody could read an event with such a time.
        """
        # Most of what a state costs are events, and half of an envelope's time is the check.
        known = type(ts_millis) is int and 0 <= ts_millis <= MAX_SAFE_INTEGER
        make = cls.of_valid if known else cls
        return make(
            run_id=run_id,
            seq=seq,
            ts_millis=ts_millis,
            event=event,
            state_id=state_id,
            attempt=attempt,
        )


class FactRecorded(Wire):
    """The payload of `fact_recorded` (seed: events::FactRecorded)."""

    key: FactKey
    payload_id: ArtifactId
    meta: JsonValue


class ArtifactWritten(Wire):
    """The payload of `artifact_written` (seed: events::ArtifactWritten)."""

    artifact_id: ArtifactId
    kind: ArtifactKind
    meta: JsonValue


class OpBoundary(Wire):
    """The payload of `op_boundary`; `phase` is such as `started` or `completed`."""

    op_path: OpPath
    phase: str


class ChildOf(Wire):
    """The payload of `mfm.child_of`, the second event of a child's stream; ours.

    `depth` is 1 for a child of a run that is nobody's child.
    """

    parent_run_id: RunId
    fact_key: FactKey
    depth: U32


class ChildRunSpawned(Wire):
    """The payload of `child_run_spawned` (seed: events::ChildRunSpawned)."""

    parent_run_id: RunId
    child_run_id: RunId
    child_manifest_id: ArtifactId


class ChildRunCompleted(Wire):
    """The payload of `child_run_completed` (seed: events::ChildRunCompleted)."""

    child_run_id: RunId
    status: RunStatus
    final_snapshot_id: ArtifactId | None = None
