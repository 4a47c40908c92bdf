"""What a driven run came to: its phase, its exports, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from mfm_ops.machine.engine import RunPhase

if TYPE_CHECKING:
    from mfm_ops.machine.canonical import Json
    from mfm_ops.machine.config import RunManifest
    from mfm_ops.machine.engine import RunResult
    from mfm_ops.machine.errors import StateError
    from mfm_ops.machine.ids import ArtifactId, OpId
    from mfm_ops.runtime.records import RunHistory
    from mfm_ops.sdk.operation import AnyOperation
    from mfm_ops.storage.sqlite import SqliteStore

__all__ = ["Outcome", "outcome_of"]


class Outcome(NamedTuple):
    """How a run stands after it was driven. `outputs` are the exports by port.

    `failure` is the error that ended a failed run, `waits_for` the fact keys of a parked one, or
    of the children that it waits for.
    """

    result: RunResult
    manifest: RunManifest
    manifest_id: ArtifactId
    op: AnyOperation | None
    outputs: dict[str, Json]
    failure: StateError | None = None
    waits_for: tuple[str, ...] = ()

    @property
    def parked(self) -> bool:
        """Whether the run waits for somebody to resolve an effect."""
        return self.result.phase is RunPhase.Running


async def outcome_of(
    store: SqliteStore,
    result: RunResult,
    manifest: RunManifest,
    manifest_id: ArtifactId,
    ops: Mapping[OpId, AnyOperation],
) -> Outcome:
    """The outcome of a run as it stands in the store."""
    from mfm_ops.sdk.planner import exports, output_operation

    outputs: dict[str, Json] = {}
    failure: StateError | None = None
    waits_for: tuple[str, ...] = ()
    if result.phase is RunPhase.Completed and result.final_snapshot_id is not None:
        from mfm_ops.machine.canonical import parse_canonical

        snapshot = parse_canonical(await store.get(result.final_snapshot_id))
        assert isinstance(snapshot, dict)
        outputs = exports(manifest, ops, snapshot)
    else:
        from mfm_ops.app.reports import read_history

        history = await read_history(store, result.run_id)
        failure = history.failure
        waits_for = tuple(str(key) for key in history.unknown_effects)
        if result.phase is RunPhase.Running and not waits_for:
            waits_for = await _waits_below(store, history)
    return Outcome(
        result=result,
        manifest=manifest,
        manifest_id=manifest_id,
        op=output_operation(manifest, ops),
        outputs=outputs,
        failure=failure,
        waits_for=waits_for,
    )


async def _waits_below(store: SqliteStore, history: RunHistory) -> tuple[str, ...]:
    from mfm_ops.app.family import children_json, parked_below

    keys: list[str] = []
    for child in parked_below(await children_json(store, history)):
        waits = child["waits_for"]
        assert isinstance(waits, list)
        keys += map(str, waits)
    return tuple(keys)
