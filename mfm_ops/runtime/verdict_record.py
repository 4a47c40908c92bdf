"""What a run recorded of each state: the last attempt, with its own events and facts. Pure.

What the events mean for the run as a whole is left to `history`, comparing to `verdict_compare`.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from mfm_ops.machine.errors import ErrorInfo
from mfm_ops.machine.events import (
    DOMAIN_EVENT_FACT_RECORDED,
    DomainEvent,
    EventEnvelope,
    StateCompleted,
    StateEntered,
    StateFailed,
    is_engine_owned,
)
from mfm_ops.machine.ids import ArtifactId, FactKey, RunId, StateId
from mfm_ops.runtime.history import Folding
from mfm_ops.runtime.records import RunHistory, StateStatus

__all__ = ["RecordedAttempt", "Recording", "RecordingBuilder"]


@dataclass(slots=True)
class RecordedAttempt:
    """The last attempt of one state, between `entered_seq` and `ended_seq` (None while open).

    `snapshot_id` is the completed attempt's, or the one that a failure left for diagnosis. `facts`
    are the keys that this attempt bound itself.
    """

    state_id: StateId
    number: int
    entered_seq: int
    base_id: ArtifactId
    status: StateStatus = StateStatus.running
    ended_seq: int | None = None
    snapshot_id: ArtifactId | None = None
    error: ErrorInfo | None = None
    events: list[DomainEvent] = field(default_factory=list)
    facts: list[FactKey] = field(default_factory=list)


class Recording(NamedTuple):
    """A run as it was recorded: `attempts` in the order in which they were entered.

    `fact_seqs` says where in the stream each fact was first bound.
    """

    history: RunHistory
    attempts: list[RecordedAttempt]
    fact_seqs: dict[FactKey, int]


class RecordingBuilder:
    """Reads a run's events one after the other, from the first on."""

    def __init__(self, run_id: RunId) -> None:
        self._folding = Folding(run_id)
        self._last: dict[StateId, RecordedAttempt] = {}
        self._open: dict[StateId, RecordedAttempt] = {}
        self._fact_seqs: dict[FactKey, int] = {}

    def feed(self, envelope: EventEnvelope) -> None:
        """Take the next event.

        Raises:
            StorageFailure: as `history.fold`.
        """
        # First, so that what follows need not check the stream's rules again.
        self._folding.go_on((envelope,))
        event = envelope.event
        if event.variant == "Domain":
            self._domain(event.Domain, envelope)
            return
        body = event.Kernel.value
        if isinstance(body, StateEntered):
            attempt = RecordedAttempt(
                body.state_id, body.attempt, envelope.seq, body.base_snapshot_id
            )
            # Taken out first: the order is that of the last attempts' beginnings.
            self._last.pop(body.state_id, None)
            self._last[body.state_id] = self._open[body.state_id] = attempt
        elif isinstance(body, StateCompleted):
            attempt = self._ended(body.state_id, envelope.seq, StateStatus.completed)
            attempt.snapshot_id = body.context_snapshot_id
        elif isinstance(body, StateFailed):
            attempt = self._ended(body.state_id, envelope.seq, StateStatus.failed)
            attempt.snapshot_id = body.failure_snapshot_id
            attempt.error = body.error.info

    def done(self) -> Recording:
        """All that was read.

        Raises:
            StorageFailure: `NotFound` (`run_not_found`) when that was nothing.
        """
        return Recording(self._folding.go_on(()), list(self._last.values()), self._fact_seqs)

    def _ended(self, state_id: StateId, seq: int, status: StateStatus) -> RecordedAttempt:
        attempt = self._open.pop(state_id)
        attempt.status, attempt.ended_seq = status, seq
        return attempt

    def _domain(self, event: DomainEvent, envelope: EventEnvelope) -> None:
        owner = self._owner(envelope)
        if event.name == DOMAIN_EVENT_FACT_RECORDED:
            # The fold has checked that the payload is one of a fact.
            key = FactKey(event.payload["key"])
            if key not in self._fact_seqs:
                self._fact_seqs[key] = envelope.seq
                if owner is not None:
                    owner.facts.append(key)
        elif owner is not None and not is_engine_owned(event.name):
            owner.events.append(event)

    def _owner(self, envelope: EventEnvelope) -> RecordedAttempt | None:
        """Whose event it is: as the envelope says, or of the only attempt that is open."""
        if envelope.state_id is None:
            return next(iter(self._open.values())) if len(self._open) == 1 else None
        owner = self._open.get(envelope.state_id)
        if owner is None or envelope.attempt not in (None, owner.number):
            return None
        return owner
