"""One attempt of one state, from `StateEntered` to its end.

Whether there is another attempt, and what the run does next, is left to `walk`.
"""

from typing import NamedTuple

import anyio

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import EventProfile
from mfm_ops.machine.errors import (
    ErrorInfo,
    RunFailure,
    StateError,
    StateFailure,
    StorageFailure,
)
from mfm_ops.machine.events import KernelEvent, StateFailed
from mfm_ops.machine.ids import ArtifactId
from mfm_ops.machine.io import IoProvider
from mfm_ops.machine.plan import StateNode
from mfm_ops.machine.state import StateOutcome
from mfm_ops.runtime.context import Delta, Snapshot, StagedContext, member_prefix
from mfm_ops.runtime.handler_failures import causes_of, info_of
from mfm_ops.runtime.interrupted import Outside
from mfm_ops.runtime.live_io import EffectInDoubt, LiveIo
from mfm_ops.runtime.persist import Persister, Refused, refuse_secrets_aside
from mfm_ops.runtime.recorder import AttemptRecorder
from mfm_ops.runtime.redact import safe_error
from mfm_ops.runtime.running import RunningState
from mfm_ops.runtime.writer import CancelRequested, RunWriter

__all__ = ["AttemptFailed", "AttemptOutcome", "Completed", "run_attempt", "skip_state"]

# What an event recorder refuses is the state's own mistake.
RECORDER_CODES = frozenset(
    {"event_name_reserved", "event_invalid", "io_attempt_over", "secrets_detected"}
)


class Completed(NamedTuple):
    """The attempt succeeded; its end is durable."""

    snapshot: Snapshot


class AttemptFailed(NamedTuple):
    """The attempt failed; its end is buffered, so that what follows may share its append."""

    error: StateError


AttemptOutcome = Completed | AttemptFailed


async def run_attempt(
    node: StateNode,
    attempt: int,
    base: Snapshot,
    *,
    io: IoProvider,
    writer: RunWriter,
    persister: Persister,
    profile: EventProfile,
    running: RunningState | None = None,
) -> AttemptOutcome:
    """Run the handler once over `base`, a snapshot that is stored already.

    With `running`, others may stop the handler; that fails the attempt for the reason they give.

    Raises:
        EffectInDoubt: an effect was begun and no outcome of it is recorded.
        StorageFailure, RunFailure: the store failed, or the driver is fenced; no fault of the
            state's.
        CancelRequested: the run is to end.
    """
    _enter(node, attempt, base, writer)
    staged = StagedContext(base)
    recorder = AttemptRecorder(writer, profile, node.id, attempt, persister.exists)
    outside = Outside()
    try:
        if running is None:
            outcome: StateOutcome | None = await node.state.handle(staged, io, recorder)
        else:
            outcome = await _handle_until_stopped(running, node, staged, io, recorder)
        _over(io, recorder)
        if _in_doubt(io):
            raise EffectInDoubt
        if not isinstance(outcome, StateOutcome):
            raise StateFailure(
                StateError(
                    info=error_info("state_outcome_invalid", "the handler returned no StateOutcome")
                )
            )
        snapshot = await _checkpoint(base, staged.delta(), persister)
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises is a failed attempt
        await outside.raise_if_it_ended(error)
        _over(io, recorder)
        info = _info_of(error, io)
        if isinstance(io, LiveIo) and not io.may_repeat:
            # Neither the handler's own error nor a deadline makes it safe to try again.
            info = info.model_copy(update={"retryable": False})
        failure_id = await _failure_snapshot(base, staged, persister)
        failed = safe_error(StateError(state_id=node.id, info=info))
        writer.add_kernel(
            KernelEvent(
                StateFailed=StateFailed(
                    state_id=node.id, error=failed, failure_snapshot_id=failure_id
                )
            )
        )
        return AttemptFailed(failed)
    await _complete(node, snapshot, writer)
    return Completed(snapshot)


async def _handle_until_stopped(
    running: RunningState,
    node: StateNode,
    staged: StagedContext,
    io: IoProvider,
    recorder: AttemptRecorder,
) -> StateOutcome | None:
    outcome: StateOutcome | None = None
    with running.stoppable() as stopped:
        outcome = await node.state.handle(staged, io, recorder)
        # The handler's own answer counts where it came first, not where it swallowed its end.
        if stopped():
            outcome = None
    if outcome is None and running.reason is not None:
        raise StateFailure(StateError(info=running.reason))
    return outcome


def _over(io: IoProvider, recorder: AttemptRecorder) -> None:
    """What a handler left running may add nothing to an attempt that has ended."""
    if isinstance(io, LiveIo):
        io.close()
    recorder.close()


def _in_doubt(io: IoProvider) -> bool:
    return isinstance(io, LiveIo) and io.must_park


async def skip_state(node: StateNode, attempt: int, base: Snapshot, writer: RunWriter) -> Completed:
    """Complete a state at once with its base; its handler is not called."""
    _enter(node, attempt, base, writer)
    await _complete(node, base, writer)
    return Completed(base)


def _enter(node: StateNode, attempt: int, base: Snapshot, writer: RunWriter) -> None:
    writer.add_kernel(KernelEvent.entered(node.id, attempt, base.artifact_id))


async def _complete(node: StateNode, snapshot: Snapshot, writer: RunWriter) -> None:
    writer.add_kernel(KernelEvent.completed(node.id, snapshot.artifact_id))
    # A request to cancel is met at the walk's next step: this state has completed all the same.
    with anyio.CancelScope(shield=True):
        try:
            await writer.flush()
        except CancelRequested:
            return


async def _checkpoint(base: Snapshot, delta: Delta, persister: Persister) -> Snapshot:
    """The context after the attempt, stored; only what is new is scanned."""
    if not delta:
        return base
    for key, fragment in delta.items():
        if fragment is not None:
            # Key and value together: a key such as `api_key` makes its value a secret.
            await refuse_secrets_aside(b"{" + member_prefix(key) + fragment + b"}")
    snapshot = base.apply(delta)
    stored_id = await persister.trusted(ArtifactKind.ContextSnapshot, snapshot.canonical_bytes())
    snapshot.stored_as(stored_id)
    return snapshot


async def _failure_snapshot(
    base: Snapshot, staged: StagedContext, persister: Persister
) -> ArtifactId | None:
    try:
        return (await _checkpoint(base, staged.delta(), persister)).artifact_id
    except Refused:
        return None


def _info_of(error: BaseException, io: IoProvider) -> ErrorInfo:
    """The record of a failed handler; what is no fault of the state's is raised again."""
    causes = list(causes_of(error))
    for cause in causes:
        if isinstance(cause, (StorageFailure, CancelRequested, EffectInDoubt)) or (
            isinstance(cause, RunFailure) and cause.info.code not in RECORDER_CODES
        ):
            raise cause
    if _in_doubt(io):
        raise EffectInDoubt
    return info_of(error, causes)
