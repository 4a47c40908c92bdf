"""What a replay says of a run: the verdict, what each state came to, and each divergence."""

from enum import StrEnum
from typing import Literal

from mfm_ops.machine.engine import RunPhase
from mfm_ops.machine.ids import OpId, RunId, StateId
from mfm_ops.machine.wire import U32, Wire
from mfm_ops.runtime.records import StateStatus

__all__ = ["Divergence", "DivergenceKind", "ReplayVerdict", "StateResult", "StateVerdict"]


class DivergenceKind(StrEnum):
    """What of an attempt was not the same again."""

    base = "base"
    """The context that the state starts from: merging its ancestors' writes gives another."""
    fact_request = "fact_request"
    """The handler asked something else under a key that is recorded."""
    fact_value = "fact_value"
    """The handler recorded another value under a key that is recorded."""
    missing_fact = "missing_fact"
    """The handler asked for what the recorded attempt never learnt."""
    unused_fact = "unused_fact"
    """The handler did not ask for what the recorded attempt learnt."""
    outcome = "outcome"
    """One of them completed and the other failed, or they failed differently."""
    context = "context"
    """The snapshot after the state."""
    event = "event"
    """The op's own events: one differs, is missing or is new."""
    final_context = "final_context"
    """What the completed states merge to at the run's end."""


class Divergence(Wire):
    """One difference between the record and the replay.

    `key` is a context key or a fact key, by `kind`; `index` counts the attempt's own events from
    0. `recorded` and `replayed` are SHA-256 of what differs (snapshots, events, requests, values,
    error records), null where one side has nothing. `diff` is for people. `state_id` is null for
    the run's end alone.
    """

    state_id: StateId | None
    attempt: U32 | None
    kind: DivergenceKind
    key: str | None = None
    index: U32 | None = None
    recorded: str | None = None
    replayed: str | None = None
    diff: tuple[str, ...] = ()


class StateResult(StrEnum):
    """What the replay of one state came to."""

    reproduced = "reproduced"
    skipped = "skipped"
    """It has a skip tag: nothing was executed then or now."""
    diverged = "diverged"
    not_replayed = "not_replayed"
    """Its end came from outside, or there is none: nothing recorded says what happened."""


class StateVerdict(Wire):
    """One state: its attempt and how that ended in the record, and what the replay came to.

    `reason` is the recorded error code of a failed attempt, or `unfinished` for an open one.
    """

    state_id: StateId
    attempt: U32
    recorded: StateStatus
    result: StateResult
    reason: str | None = None


class ReplayVerdict(Wire):
    """The whole of it. `states` and `divergences` are in the order of the recorded execution.

    `reproduced_up_to` is the verdict on a run that did not complete, and `up_to` the state that
    it came to: the one that failed or is unfinished, or else the last that completed; null where
    no state has begun.
    """

    run_id: RunId
    op_id: OpId
    phase: RunPhase
    verdict: Literal["reproduced", "reproduced_up_to", "diverged"]
    up_to: StateId | None
    states: tuple[StateVerdict, ...]
    divergences: tuple[Divergence, ...]
    notes: tuple[str, ...] = ()
