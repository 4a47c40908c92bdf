"""One driver's work on one run, from its first state to the run's end, park or interruption.

Which state runs when is left to `fan_out`, how often to `walk`; refusing to begin at all to
`executor`.
"""

import contextlib
from enum import Enum, auto

import anyio

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import OnStateFailure
from mfm_ops.machine.engine import RunPhase, RunResult
from mfm_ops.machine.errors import ContextFailure, ErrorInfo, RunFailure, StorageFailure
from mfm_ops.machine.events import (
    EVENT_CONTEXT_CONFLICT,
    EVENT_DEADLINE_EXCEEDED,
    EVENT_DRIVER_STOPPED,
    DomainEvent,
    KernelEvent,
    RunCompleted,
    RunStatus,
)
from mfm_ops.machine.ids import ArtifactId
from mfm_ops.runtime.redact import safe_info
from mfm_ops.runtime.walk import DriveEnv, RunParked, StateFailedForGood, Walk
from mfm_ops.runtime.writer import CancelRequested

__all__ = ["drive"]

# An open attempt is written within 100 ms for those who watch (the contract, section 4): looked
# for twice in that time.
WATCH_INTERVAL_S = 0.05
# How soon a driver that has nothing to append learns what others appended: one read of the head.
LOOK_INTERVAL_S = 0.25
# How long an interrupted driver tries to say that it stopped.
FAREWELL_S = 2.0


class _End(Enum):
    completed = auto()
    failed = auto()
    cancelled = auto()
    parked = auto()


async def drive(env: DriveEnv) -> RunResult:
    """Drive the run until it is over or parked.

    Interrupted or failing, it leaves a stream that resumes: what was not durable is forgotten,
    and the driver says that it stopped where the store lets it.

    Raises:
        StorageFailure: the store failed.
        RunFailure: `run_fenced`.
    """
    # Not in the watcher's own task: the first handler may let no other run for long.
    walk, began = Walk(env), anyio.current_time()
    try:
        end = _End.cancelled
        async with anyio.create_task_group() as tasks:
            if env.children is not None:
                env.children.open(tasks)
            with anyio.CancelScope() as working:
                tasks.start_soon(_watch, env, walk, working, began)
                end = await _work_with_children(env, walk)
            if env.children is not None and end in (_End.cancelled, _End.failed):
                await env.children.cancel_all()
            tasks.cancel_scope.cancel()
        return await _finish(env, walk, end)
    except BaseException as error:
        cause = _first_cause(error)
        if not isinstance(cause, RunFailure) or cause.info.code != "run_fenced":
            env.io.writer.drop_pending()
            await _farewell(env)
        if cause is error:
            raise
        raise cause from None


async def _work_with_children(env: DriveEnv, walk: Walk) -> _End:
    """A run ends after its children; one that waits for somebody does so once they have ended."""
    end = await _work(env, walk)
    if env.children is None or end not in (_End.completed, _End.parked):
        return end
    env.children.go_on()
    with anyio.CancelScope() as waiting:
        walk.waiting = waiting
        if walk.stopped is not None:
            waiting.cancel()
        if await env.children.settled():
            return _End.parked
    return _End.failed if waiting.cancelled_caught and end is _End.completed else end


async def _work(env: DriveEnv, walk: Walk) -> _End:
    writer, config = env.io.writer, env.config
    try:
        if writer.cancel_requested or (env.history and env.history.cancel_requested):
            raise CancelRequested
        await walk.settle()
        if env.children is not None:
            # Not before: children of a run that is to end must begin nothing any more.
            env.children.go_on()
        mode = config.execution_mode.value
        if config.execution_mode.variant == "FanOutJoin" and mode is not None:
            writer.gathers = True
            # Here and not above: most runs have nothing to run at once, and start sooner without.
            from mfm_ops.runtime.fan_out import fan_out

            on_failure = config.on_state_failure or OnStateFailure.CancelRunning
            await fan_out(walk, mode.max_concurrency, on_failure)
        else:
            for node in walk.remaining():
                await walk.execute(node)
    except CancelRequested:
        return _End.cancelled
    except RunParked:
        return _End.parked
    except StateFailedForGood:
        return _End.failed
    return _End.completed


async def _finish(env: DriveEnv, walk: Walk, end: _End) -> RunResult:
    if env.children is not None:
        env.children.tell_rest()
    match end:
        case _End.parked:
            return await _park(env)
        case _End.cancelled:
            walk.close_open_attempts("run_cancelled", "the run was cancelled during this attempt")
            return await _complete(env, RunStatus.Cancelled, await walk.contexts.checkpoint())
        case _End.completed:
            try:
                return await _complete(env, RunStatus.Completed, await walk.contexts.final())
            except ContextFailure as conflict:
                # No state joins these writes, so the run itself says what is wrong with it.
                _say(env, EVENT_CONTEXT_CONFLICT, conflict.info)
        case _End.failed:
            # Earlier drivers' attempts: parked, or cut short, and now nobody goes on with them.
            why = walk.stopped or error_info("state_cancelled", "the run failed in another state")
            walk.close_open_attempts(why.code, why.message)
            if walk.stopped is not None and walk.stopped.code == "run_deadline_exceeded":
                _say(env, EVENT_DEADLINE_EXCEEDED, walk.stopped)
    return await _complete(env, RunStatus.Failed, await walk.contexts.checkpoint())


async def _park(env: DriveEnv) -> RunResult:
    # A request to cancel that comes now is met by whoever resolves or resumes the run.
    with contextlib.suppress(CancelRequested):
        await env.io.writer.flush()
    await _farewell(env)
    return RunResult(run_id=env.run_id, phase=RunPhase.Running)


async def _complete(env: DriveEnv, status: RunStatus, final: ArtifactId | None) -> RunResult:
    completed = RunCompleted(status=status, final_snapshot_id=final)
    env.io.writer.add_kernel(KernelEvent(RunCompleted=completed))
    # A request to cancel that came before this append came too late, or is obeyed by it.
    with contextlib.suppress(CancelRequested):
        await env.io.writer.flush()
    return RunResult(run_id=env.run_id, phase=RunPhase(status.value), final_snapshot_id=final)


def _say(env: DriveEnv, name: str, info: ErrorInfo) -> None:
    """An error that is the run's own, no state's."""
    payload = safe_info(info).model_dump(mode="json")
    env.io.writer.add_domain(DomainEvent(name=name, payload=payload))


async def _watch(env: DriveEnv, walk: Walk, working: anyio.CancelScope, began: float) -> None:
    """What goes by the clock: long attempts become visible, deadlines pass, others interfere."""
    writer, config = env.io.writer, env.config
    look_at = began
    while True:
        await anyio.sleep(WATCH_INTERVAL_S)
        now = anyio.current_time()
        if config.run_deadline_ms is not None and now - began >= config.run_deadline_ms / 1000:
            walk.stop(
                _late("run_deadline_exceeded", "the run took too long", config.run_deadline_ms)
            )
        for running in walk.running:
            if running.deadline is not None and now >= running.deadline:
                running.stop(
                    _late(
                        "state_deadline_exceeded",
                        "the attempt took too long",
                        config.state_deadline_ms,
                    )
                )
        try:
            if writer.has_pending:
                await writer.flush()
            elif now - look_at >= LOOK_INTERVAL_S:
                look_at = now
                await writer.look()
        except CancelRequested:
            working.cancel()


def _late(code: str, message: str, deadline_ms: int | None) -> ErrorInfo:
    return error_info(code, message, deadline_ms=deadline_ms)


async def _farewell(env: DriveEnv) -> None:
    """Say that this driver stopped, if the store lets it; nothing depends on it."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(FAREWELL_S):
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
