"""The list of runs, as plain JSON: of each how it ended, or whether anybody is at work on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mfm_ops.app.family import activity_with_children
from mfm_ops.app.reports import read_history
from mfm_ops.machine.errors import StorageFailure

if TYPE_CHECKING:
    from mfm_ops.app.reports import AnyStore
    from mfm_ops.machine.stores import RunListing

__all__ = ["ENDED", "run_list", "standing"]

ENDED = "RunCompleted"


async def run_list(store: AnyStore, limit: int | None) -> list[dict[str, Any]]:
    """The newest runs first, one entry each."""
    return [
        {
            "run_id": str(run.run_id),
            "op_id": None if run.op_id is None else str(run.op_id),
            "started_ts_millis": run.started_ts_millis,
            "head_seq": run.head_seq,
            "last_event": run.last_event,
            **(await standing(store, run)),
        }
        for run in await store.list_runs(limit=limit)
    ]


async def standing(store: AnyStore, run: RunListing) -> dict[str, str | None]:
    """`phase`, and `activity` of a run that is not over; both None for one that is damaged."""
    try:
        if run.last_event == ENDED:
            # The last event says it; the rest need not be read.
            (last,) = await store.read_range(run.run_id, run.head_seq, run.head_seq)
            ended = last.event.Kernel.value
            return {"phase": ended.status.value, "activity": None}
        history = await read_history(store, run.run_id)
        activity = await activity_with_children(store, history)
    except StorageFailure:
        return {"phase": None, "activity": None}
    return {"phase": history.phase.value, "activity": activity}
