"""One driver's work on one run, from its first state to the run's end, park or interruption.

Which state runs when, and how often, is left to `walk`; refusing to begin at all to `executor`.
"""

import contextlib

import anyio

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.engine import RunPhase, RunResult
from mfm_ops.machine.errors import ContextFailure, RunFailure, StorageFailure
from mfm_ops.machine.events import (
    EVENT_CONTEXT_CONFLICT,
    EVENT_DRIVER_STOPPED,
    DomainEvent,
    KernelEvent,
    RunCompleted,
    RunStatus,
)
from mfm_ops.machine.ids import ArtifactId
from mfm_ops.runtime.redact import safe_info
from mfm_ops.runtime.walk import DriveEnv, RunParked, StateFailedForGood, Walk
from mfm_ops.runtime.writer import CancelRequested, RunWriter

__all__ = ["drive"]

# An open attempt is written within 100 ms for those who watch (the contract, section 4): looked
# for twice in that time.
WATCH_INTERVAL_S = 0.05
# How long an interrupted driver tries to say that it stopped.
FAREWELL_S = 2.0


async def drive(env: DriveEnv) -> RunResult:
    """Drive the run until it is over or parked.

    Interrupted or failing, it leaves a stream that resumes: what was not durable is forgotten,
    and the driver says that it stopped where the store lets it.

    Raises:
        StorageFailure: the store failed.
        RunFailure: `run_fenced`.
    """
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_write_in_time, env.io.writer)
            try:
                result = await _walk(env)
            finally:
                tasks.cancel_scope.cancel()
        return result
    except BaseException as error:
        cause = _first_cause(error)
        if not isinstance(cause, RunFailure) or cause.info.code != "run_fenced":
            await _farewell(env)
        if cause is error:
            raise
        raise cause from None


async def _walk(env: DriveEnv) -> RunResult:
    walk = Walk(env)
    try:
        if env.history is not None and env.history.cancel_requested:
            raise CancelRequested
        for node in walk.remaining():
            if env.io.writer.cancel_requested:
                raise CancelRequested
            await walk.execute(node)
        final = await walk.final_snapshot()
    except CancelRequested:
        walk.close_open_attempts()
        return await _complete(env, RunStatus.Cancelled, walk.last_checkpoint)
    except StateFailedForGood:
        return await _complete(env, RunStatus.Failed, walk.last_checkpoint)
    except ContextFailure as conflict:
        # No state joins these writes, so the run itself says what is wrong with it.
        info = safe_info(conflict.info).model_dump(mode="json")
        env.io.writer.add_domain(DomainEvent(name=EVENT_CONTEXT_CONFLICT, payload=info))
        return await _complete(env, RunStatus.Failed, walk.last_checkpoint)
    except RunParked:
        await _farewell(env)
        return RunResult(run_id=env.run_id, phase=RunPhase.Running)
    return await _complete(env, RunStatus.Completed, final)


async def _complete(env: DriveEnv, status: RunStatus, final: ArtifactId | None) -> RunResult:
    completed = RunCompleted(status=status, final_snapshot_id=final)
    env.io.writer.add_kernel(KernelEvent(RunCompleted=completed))
    # A request to cancel that came before this append came too late, or is obeyed by it.
    with contextlib.suppress(CancelRequested):
        await env.io.writer.flush()
    return RunResult(run_id=env.run_id, phase=RunPhase(status.value), final_snapshot_id=final)


async def _write_in_time(writer: RunWriter) -> None:
    """Make the opening of a long attempt durable, so that others can see it."""
    while True:
        await anyio.sleep(WATCH_INTERVAL_S)
        if writer.has_pending:
            try:
                await writer.flush()
            except CancelRequested:
                # The walk meets the same request at its own next append.
                continue


async def _farewell(env: DriveEnv) -> None:
    """Say that this driver stopped, if the store lets it; nothing depends on it."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(FAREWELL_S):
        env.io.writer.drop_pending()
        payload: dict[str, Json] = {"driver_id": env.driver.driver_id}
        env.io.writer.add_domain(DomainEvent(name=EVENT_DRIVER_STOPPED, payload=payload))
        try:
            await env.io.writer.flush()
        except (StorageFailure, RunFailure, CancelRequested):
            return


def _first_cause(error: BaseException) -> BaseException:
    """What a task group wrapped; of several what says most: who won, then what the store said."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [_first_cause(part) for part in error.exceptions]
    fenced = [cause for cause in causes if isinstance(cause, RunFailure)]
    failed = [cause for cause in causes if isinstance(cause, StorageFailure)]
    return (fenced or failed or causes)[0]
