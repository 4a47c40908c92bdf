"""Where does a run stand? A pure fold of its event stream, which checks the stream's rules.

The store has verified the bytes; what an event means for the run is decided here and nowhere
else. Deciding what to do next is left to `executor`.
"""

from collections.abc import Iterable
from typing import TypeVar, cast

from mfm_ops.machine import events as ev
from mfm_ops.machine.canonical import Json, canonical_json_bytes
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import ErrorInfo, StorageError, StorageFailure
from mfm_ops.machine.events import DomainEvent, EventEnvelope
from mfm_ops.machine.ids import ArtifactId, FactKey, RunId, StateId
from mfm_ops.machine.wire import Wire
from mfm_ops.runtime.facts import BoundFact
from mfm_ops.runtime.records import (
    ORPHANED,
    ChildRecord,
    Fork,
    Intent,
    Resolution,
    RunHistory,
    StateRecord,
    StateStatus,
)

W = TypeVar("W", bound=Wire)

__all__ = [
    "Folding",
    "Intent",
    "RunHistory",
    "StateRecord",
    "StateStatus",
    "fold",
]


def fold(run_id: RunId, envelopes: Iterable[EventEnvelope]) -> RunHistory:
    """The history that `envelopes` tell, from the run's first event on.

    Raises:
        StorageFailure: `NotFound` (`run_not_found`) for an empty stream; `Corruption`
            (`history_invalid`, with the sequence number) where a rule of the stream is broken.
    """
    return Folding(run_id).go_on(envelopes)


class Folding:
    """A fold that can go on when the stream has grown."""

    def __init__(self, run_id: RunId) -> None:
        self.run_id = run_id
        # The last event that was fed.
        self.seq = 0
        self._history: RunHistory | None = None
        self._ts: int | None = None

    def go_on(self, envelopes: Iterable[EventEnvelope]) -> RunHistory:
        """The history with the next `envelopes`; one object, which changes. Raises as `fold`."""
        for envelope in envelopes:
            self._feed(envelope)
        return self._told()

    def _told(self) -> RunHistory:
        if self._history is None:
            raise StorageFailure(
                StorageError(
                    NotFound=error_info("run_not_found", "there is no such run", run_id=self.run_id)
                )
            )
        self._history.head_seq = self.seq
        return self._history

    def _feed(self, envelope: EventEnvelope) -> None:
        if envelope.run_id != self.run_id:
            raise self._broken("another_run")
        if envelope.seq != self.seq + 1:
            raise self._broken("sequence_gap")
        self.seq, self._ts = envelope.seq, envelope.ts_millis
        event = envelope.event
        if event.variant == "Domain":
            self._domain(event.Domain, envelope)
            return
        body = event.Kernel.value
        if isinstance(body, ev.RunStarted):
            self._started(body)
            return
        history = self._open_run()
        self._expect(history.status is None, "event_after_end")
        if isinstance(body, ev.StateEntered):
            self._entered(history, body)
        elif isinstance(body, ev.StateCompleted):
            self._completed(history, body)
        elif isinstance(body, ev.StateFailed):
            self._failed(history, body)
        else:
            history.status = body.status
            history.final_snapshot_id = body.final_snapshot_id
            history.ended_ts_millis = self._ts

    def _started(self, body: ev.RunStarted) -> None:
        self._expect(self._history is None and self.seq == 1, "started_twice")
        self._history = RunHistory(
            run_id=self.run_id,
            op_id=body.op_id,
            manifest_id=body.manifest_id,
            initial_snapshot_id=body.initial_snapshot_id,
            started_ts_millis=self._ts,
        )

    def _entered(self, history: RunHistory, body: ev.StateEntered) -> None:
        state = history.states.get(body.state_id)
        if state is None:
            state = history.states[body.state_id] = StateRecord(
                body.state_id, StateStatus.running, body.base_snapshot_id
            )
        else:
            self._expect(state.status is StateStatus.failed, "attempt_overlaps")
        self._expect(body.attempt == state.attempts, "attempt_number")
        state.status = StateStatus.running
        state.base_snapshot_id = body.base_snapshot_id
        state.attempts += 1
        state.charged += 1
        state.entered_ts_millis, state.ended_ts_millis = self._ts, None

    def _completed(self, history: RunHistory, body: ev.StateCompleted) -> None:
        state = self._open_state(history, body.state_id)
        state.status = StateStatus.completed
        state.snapshot_id = body.context_snapshot_id
        state.error = state.failure_snapshot_id = None
        self._ended(history, state)

    def _failed(self, history: RunHistory, body: ev.StateFailed) -> None:
        state = self._open_state(history, body.state_id)
        state.status = StateStatus.failed
        state.error = body.error
        state.failure_snapshot_id = body.failure_snapshot_id
        self._ended(history, state)
        if body.error.info.code == ORPHANED:
            # The driver died, not the state: that costs it none of its attempts.
            state.charged -= 1

    def _ended(self, history: RunHistory, state: StateRecord) -> None:
        state.ended_ts_millis, state.ended_seq = self._ts, self.seq
        history.failed_effects.pop(state.state_id, None)
        # An announced effect is over with its attempt; one of unknown outcome stays so.
        if history.open_intents:
            for intent in list(history.open_intents.values()):
                if intent.state_id == state.state_id:
                    del history.open_intents[intent.key]

    def _domain(self, event: DomainEvent, envelope: EventEnvelope) -> None:
        history = self._open_run()
        if not ev.is_engine_owned(event.name):
            return
        payload = event.payload if isinstance(event.payload, dict) else {}
        match event.name:
            case ev.DOMAIN_EVENT_FACT_RECORDED:
                self._fact(history, payload)
            case ev.EVENT_DRIVER:
                history.drivers.append(payload)
            case ev.EVENT_DRIVER_STOPPED:
                history.stopped_drivers.add(str(payload.get("driver_id")))
            case ev.EVENT_IO_INTENT:
                intent = self._intent(payload, envelope.state_id)
                history.open_intents[intent.key] = intent
            case ev.EVENT_EFFECT_UNKNOWN:
                intent = self._intent(payload, envelope.state_id)
                history.unknown_effects[intent.key] = intent
            case ev.EVENT_EFFECT_RESOLVED:
                self._resolved(history, payload, envelope.state_id)
            case ev.EVENT_CONTEXT_CONFLICT | ev.EVENT_DEADLINE_EXCEEDED:
                history.run_error = self._error_info(payload)
            case ev.EVENT_FORKED_FROM:
                history.forked_from = self._fork(payload)
            case ev.EVENT_CANCEL_REQUESTED:
                history.cancel_requested = True
            case ev.DOMAIN_EVENT_CHILD_RUN_SPAWNED:
                self._child_spawned(history, payload, envelope.state_id)
            case ev.DOMAIN_EVENT_CHILD_RUN_COMPLETED:
                self._child_completed(history, payload)
            case ev.EVENT_CHILD_OF:
                history.child_of = self._parsed(ev.ChildOf, payload)
            case _:
                pass

    def _fact(self, history: RunHistory, payload: dict[str, Json]) -> None:
        try:
            recorded = ev.FactRecorded.model_validate(payload)
        except ValueError:
            self._expect(False, "fact_payload")
            raise
        meta = recorded.meta if isinstance(recorded.meta, dict) else {}
        request_id = meta.get("request_id")
        known = history.facts.get(recorded.key)
        self._expect(known is None or known.payload_id == recorded.payload_id, "fact_conflict")
        if known is None:
            history.facts[recorded.key] = BoundFact(
                recorded.key,
                recorded.payload_id,
                request_id if isinstance(request_id, str) else None,
                cast(Json, recorded.meta),
            )
        history.open_intents.pop(recorded.key, None)
        history.unknown_effects.pop(recorded.key, None)

    def _resolved(
        self, history: RunHistory, payload: dict[str, Json], state_id: StateId | None
    ) -> None:
        key = FactKey(str(payload.get("key")))
        history.unknown_effects.pop(key, None)
        history.open_intents.pop(key, None)
        if payload.get("as") == Resolution.failed and state_id is not None:
            history.failed_effects[state_id] = key

    def _child_spawned(
        self, history: RunHistory, payload: dict[str, Json], state_id: StateId | None
    ) -> None:
        spawned = self._parsed(ev.ChildRunSpawned, payload)
        # Kept by a fork: the same child may be told of again.
        history.children.setdefault(
            spawned.child_run_id,
            ChildRecord(
                spawned.child_run_id,
                spawned.child_manifest_id,
                spawned.parent_run_id,
                state_id,
            ),
        )

    def _child_completed(self, history: RunHistory, payload: dict[str, Json]) -> None:
        completed = self._parsed(ev.ChildRunCompleted, payload)
        child = history.children.get(completed.child_run_id)
        # A fork may keep the state that awaited a child and not the one that spawned it.
        if child is not None:
            child.status, child.final_snapshot_id = completed.status, completed.final_snapshot_id

    def _parsed(self, model: type[W], payload: dict[str, Json]) -> W:
        try:
            return model.model_validate_json(canonical_json_bytes(payload))
        except ValueError:
            self._expect(False, "child_payload")
            raise

    def _error_info(self, payload: dict[str, Json]) -> ErrorInfo:
        try:
            return ErrorInfo.model_validate_json(canonical_json_bytes(payload))
        except ValueError:
            self._expect(False, "error_payload")
            raise

    def _fork(self, payload: dict[str, Json]) -> Fork:
        overrides = payload.get("overrides_id")
        try:
            return Fork(
                RunId(str(payload.get("run_id"))),
                StateId(str(payload.get("state_id"))),
                None if overrides is None else ArtifactId(str(overrides)),
            )
        except ValueError:
            self._expect(False, "fork_payload")
            raise

    def _intent(self, payload: dict[str, Json], state_id: StateId | None) -> Intent:
        key, request_id = payload.get("key"), payload.get("request_id")
        known = isinstance(key, str) and isinstance(request_id, str) and len(request_id) == 64
        self._expect(known, "intent_payload")
        return Intent(state_id, FactKey(cast(str, key)), ArtifactId(cast(str, request_id)))

    def _open_run(self) -> RunHistory:
        self._expect(self._history is not None, "not_started")
        return cast(RunHistory, self._history)

    def _open_state(self, history: RunHistory, state_id: StateId) -> StateRecord:
        state = history.states.get(state_id)
        self._expect(state is not None and state.status is StateStatus.running, "no_open_attempt")
        return cast(StateRecord, state)

    def _expect(self, holds: bool, reason: str) -> None:
        if not holds:
            raise self._broken(reason)

    def _broken(self, reason: str) -> StorageFailure:
        return StorageFailure(
            StorageError(
                Corruption=error_info(
                    "history_invalid",
                    "the event stream breaks a rule of its kind",
                    run_id=self.run_id,
                    seq=self.seq,
                    reason=reason,
                )
            )
        )
