"""Child runs for op authors: spawn a run from a state, and wait for what came of it.

A state that calls these declares at least `ReadOnlyIo`. What the engine makes of the calls is left
to it; docs/child-runs.md tells the rules.
"""

from collections.abc import Mapping
from types import MappingProxyType

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.child_runs import (
    NAMESPACE_AWAIT,
    NAMESPACE_SPAWN,
    AwaitChildRun,
    ChildRunConfig,
    ChildRunOutcome,
    SpawnChildRun,
    SpawnedChildRun,
)
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import StateError, StateFailure
from mfm_ops.machine.events import RunStatus
from mfm_ops.machine.ids import FactKey, OpId, RunId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.wire import Wire
from mfm_ops.sdk.pipeline import Pipeline

__all__ = ["await_child", "child_outputs", "spawn_op", "spawn_pipeline"]

NOTHING: Mapping[str, Json] = MappingProxyType({})


async def spawn_op(
    io: IoProvider,
    op_id: str,
    op_config: Mapping[str, Json] = NOTHING,
    *,
    given: Mapping[str, Json] = NOTHING,
    key: str | None = None,
    run_config: ChildRunConfig | None = None,
) -> RunId:
    """Start a run of one op, and go on at once; the child's id.

    Spawning the same again in one state is the same child, also after a crash or in a retry: name
    a `key` to have several. `given` is what the op imports, by port; `run_config` what shall be
    otherwise than in this run.

    Raises:
        IoFailure: `Transport` with `child_run_invalid`, `child_run_depth`, `child_run_cycle`.
    """
    spawn = SpawnChildRun(
        op_id=OpId(op_id),
        op_config={**op_config},
        input={**given} or None,
        run_config=run_config,
    )
    return await _spawn(io, spawn, key)


async def spawn_pipeline(
    io: IoProvider,
    pipeline: Pipeline,
    *,
    given: Mapping[str, Json] = NOTHING,
    key: str | None = None,
    run_config: ChildRunConfig | None = None,
) -> RunId:
    """Start a run of a pipeline; see `spawn_op`."""
    spawn = SpawnChildRun(
        pipeline=pipeline.model_dump(mode="json"), input={**given} or None, run_config=run_config
    )
    return await _spawn(io, spawn, key)


async def await_child(io: IoProvider, child: RunId) -> ChildRunOutcome:
    """Wait until `child` is over; how it ended, whatever that is.

    Raises:
        IoFailure: `Transport` with `child_run_unknown` for a run that is no child of this one.
    """
    request = AwaitChildRun(child_run_id=child)
    answer = await io.call(_call(NAMESPACE_AWAIT, request, None))
    return ChildRunOutcome.model_validate(answer.response, strict=False)


async def child_outputs(io: IoProvider, child: RunId) -> dict[str, Json]:
    """Wait for `child`, and take what it exports, by port.

    Raises:
        StateFailure: `child_run_failed`, `child_run_cancelled`; a handler may catch them. Neither
            is retryable: the child is over for good.
        IoFailure: as `await_child`.
    """
    outcome = await await_child(io, child)
    if outcome.status is RunStatus.Completed:
        return outcome.outputs or {}
    if outcome.status is RunStatus.Cancelled:
        info = error_info(
            "child_run_cancelled", "the child run was cancelled", child_run_id=str(child)
        )
        raise StateFailure(StateError(info=info))
    about: dict[str, Json] = {"child_run_id": str(child)}
    if outcome.failure is not None:
        about["child_code"] = str(outcome.failure.code)
        if outcome.failure.state_id is not None:
            about["child_state_id"] = str(outcome.failure.state_id)
    info = error_info("child_run_failed", "the child run failed", **about)
    raise StateFailure(StateError(info=info))


async def _spawn(io: IoProvider, spawn: SpawnChildRun, key: str | None) -> RunId:
    answer = await io.call(_call(NAMESPACE_SPAWN, spawn, key))
    return SpawnedChildRun.model_validate(answer.response).child_run_id


def _call(namespace: str, request: Wire, key: str | None) -> IoCall:
    return IoCall(
        namespace=namespace,
        request=request.model_dump(mode="json"),
        fact_key=None if key is None else FactKey(key),
    )
