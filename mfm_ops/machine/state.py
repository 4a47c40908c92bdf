"""A step's behaviour (seed: state). States do not own their ids: the plan assigns them."""

from enum import StrEnum
from typing import Protocol

from mfm_ops.machine.context import DynContext
from mfm_ops.machine.io import IoProvider
from mfm_ops.machine.meta import StateMeta
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.wire import Wire

__all__ = ["DynState", "SnapshotPolicy", "State", "StateOutcome"]


class SnapshotPolicy(StrEnum):
    """Whether the state asks for a snapshot of its own (seed: state::SnapshotPolicy).

    A hint: the run's checkpointing may take one regardless.
    """

    Never = "Never"
    OnSuccess = "OnSuccess"
    Always = "Always"


class StateOutcome(Wire):
    """What a successful handler returns (seed: state::StateOutcome)."""

    snapshot: SnapshotPolicy


class State(Protocol):
    """One step (seed: state::State)."""

    def meta(self) -> StateMeta:
        """The declaration that planning, policy and replay go by; the same at every call."""

    async def handle(self, ctx: DynContext, io: IoProvider, rec: EventRecorder) -> StateOutcome:
        """Do the step. Writes to `ctx` count only when this returns.

        Raises:
            StateFailure: the step failed; `info.retryable` decides on another attempt.
            IoFailure, ContextFailure: passed through from `io` and `ctx`.
        """


DynState = State
