"""How a run stands: the records that a fold of its events fills.

What an event means for them is decided in `history`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.engine import RunPhase, RunResult
from mfm_ops.machine.errors import ErrorInfo, StateError
from mfm_ops.machine.events import ChildOf, RunStatus
from mfm_ops.machine.ids import ArtifactId, FactKey, OpId, RunId, StateId
from mfm_ops.runtime.facts import BoundFact

__all__ = [
    "ChildRecord",
    "Fork",
    "Intent",
    "ORPHANED",
    "Resolution",
    "RunHistory",
    "StateRecord",
    "StateStatus",
]

ORPHANED = "attempt_orphaned"
# Ends that others brought upon a state.
STOPPED = frozenset({"state_cancelled", "run_cancelled", ORPHANED})


class StateStatus(StrEnum):
    """Where one state stands; `running` is an attempt that has not ended (or never will)."""

    running = "running"
    completed = "completed"
    failed = "failed"


@dataclass(slots=True)
class StateRecord:
    """One state's attempts so far.

    `attempts` counts all of them, `charged` those that count against `max_attempts`.
    """

    state_id: StateId
    status: StateStatus
    base_snapshot_id: ArtifactId
    attempts: int = 0
    charged: int = 0
    snapshot_id: ArtifactId | None = None
    error: StateError | None = None
    failure_snapshot_id: ArtifactId | None = None
    entered_ts_millis: int | None = None
    ended_ts_millis: int | None = None
    ended_seq: int = 0


class Intent(NamedTuple):
    """An effect that was announced: whose, under which fact key, with which request."""

    state_id: StateId | None
    key: FactKey
    request_id: ArtifactId


class Resolution(StrEnum):
    """What somebody found out about an effect of unknown outcome."""

    completed = "completed"
    failed = "failed"
    retry = "retry"


class Fork(NamedTuple):
    """Where a forked run comes from; `overrides_id` names the changed context values, if any."""

    run_id: RunId
    state_id: StateId
    overrides_id: ArtifactId | None


@dataclass(slots=True)
class ChildRecord:
    """A child run as its parent's events tell it; `status` is None until they say that it ended.

    `parent_run_id` is another run's where a fork keeps the facts of the run that it comes from.
    """

    run_id: RunId
    manifest_id: ArtifactId
    parent_run_id: RunId
    state_id: StateId | None
    status: RunStatus | None = None
    final_snapshot_id: ArtifactId | None = None


@dataclass(slots=True)
class RunHistory:
    """A run as its events tell it. `states` is in the order in which they were first entered."""

    run_id: RunId
    op_id: OpId
    manifest_id: ArtifactId
    initial_snapshot_id: ArtifactId
    started_ts_millis: int | None
    head_seq: int = 0
    states: dict[StateId, StateRecord] = field(default_factory=dict)
    facts: dict[FactKey, BoundFact] = field(default_factory=dict)
    drivers: list[dict[str, Json]] = field(default_factory=list)
    stopped_drivers: set[str] = field(default_factory=set)
    open_intents: dict[FactKey, Intent] = field(default_factory=dict)
    unknown_effects: dict[FactKey, Intent] = field(default_factory=dict)
    failed_effects: dict[StateId, FactKey] = field(default_factory=dict)
    forked_from: Fork | None = None
    child_of: ChildOf | None = None
    children: dict[RunId, ChildRecord] = field(default_factory=dict)
    cancel_requested: bool = False
    run_error: ErrorInfo | None = None
    status: RunStatus | None = None
    final_snapshot_id: ArtifactId | None = None
    ended_ts_millis: int | None = None

    @property
    def phase(self) -> RunPhase:
        """The run's phase; a parked run is `Running`."""
        return RunPhase.Running if self.status is None else RunPhase(self.status.value)

    @property
    def parked(self) -> bool:
        """Whether the run waits for somebody to resolve an effect of unknown outcome."""
        return self.status is None and any(self.in_doubt(s) for s in self.states)

    def in_doubt(self, state_id: StateId) -> list[Intent]:
        """The effects of unknown outcome of a state's open attempt."""
        state = self.states.get(state_id)
        if state is None or state.status is not StateStatus.running:
            return []
        return [i for i in self.unknown_effects.values() if i.state_id == state_id]

    @property
    def open_children(self) -> list[ChildRecord]:
        """This run's own children that it does not know to be over, in the order of spawning."""
        return [
            child
            for child in self.children.values()
            if child.status is None and child.parent_run_id == self.run_id
        ]

    @property
    def driver(self) -> dict[str, Json] | None:
        """The newest driver's mark, unless it said that it stopped."""
        if not self.drivers or self.drivers[-1].get("driver_id") in self.stopped_drivers:
            return None
        return self.drivers[-1]

    @property
    def failure(self) -> StateError | None:
        """Why the run failed, or the last failure so far.

        The run's own error comes first, then a state's: one that is final before one that would
        have been tried again had another not ended the run. Those that were only stopped come last.
        """
        if self.run_error is not None:
            return StateError(info=self.run_error)
        failed = [s for s in self.states.values() if s.status is StateStatus.failed and s.error]
        found = max(failed, key=_tells_why, default=None)
        return found.error if found is not None else None

    @property
    def result(self) -> RunResult:
        """What the engine answers for this run as it stands."""
        return RunResult(
            run_id=self.run_id, phase=self.phase, final_snapshot_id=self.final_snapshot_id
        )


def _tells_why(state: StateRecord) -> tuple[bool, bool, int, int]:
    assert state.error is not None, "only what failed is asked why"
    info = state.error.info
    # Which of the retryable ones was the last straw the log does not say: the most tried one.
    tried = state.charged if info.retryable else 0
    return info.code not in STOPPED, not info.retryable, tried, state.ended_seq
