"""The runs that a run spawned, as a tree of plain JSON. Each stands as its own stream says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfm_ops.app.reports import member, read_history
from mfm_ops.app.standing import Activity, activity_of_run
from mfm_ops.machine.canonical import Json, parse_strict
from mfm_ops.machine.errors import StorageFailure

if TYPE_CHECKING:
    from mfm_ops.app.reports import AnyStore
    from mfm_ops.runtime.records import ChildRecord, RunHistory

__all__ = ["activity_with_children", "children_json", "parent_json", "parked_below"]


async def children_json(store: AnyStore, history: RunHistory) -> list[dict[str, Json]]:
    """The children of a run, and theirs; in the order of spawning."""
    return [await _child_json(store, child) for child in history.children.values()]


async def _child_json(store: AnyStore, child: ChildRecord) -> dict[str, Json]:
    history = await _history_of(store, child)
    # A child that never began has no stream; its parent may know that it never will.
    known = history.status if history else child.status
    phase = history.phase.value if history else known.value if known else None
    below = [] if history is None else await children_json(store, history)
    activity = None if history is None else _activity(history, below)
    return {
        "run_id": str(child.run_id),
        "op_id": member(parse_strict(await store.get(child.manifest_id)), "op_id"),
        "state_id": None if child.state_id is None else str(child.state_id),
        "phase": phase,
        "activity": activity,
        "parked": history is not None and history.parked,
        "waits_for": [str(key) for key in history.unknown_effects] if history else [],
        "children": [*below],
    }


async def activity_with_children(store: AnyStore, history: RunHistory) -> Activity | None:
    """What goes on in a run; one that only waits for a parked child of its is parked too."""
    if activity_of_run(history) is not Activity.interrupted or not history.children:
        return activity_of_run(history)
    return _activity(history, await children_json(store, history))


def _activity(history: RunHistory, children: list[dict[str, Json]]) -> Activity | None:
    activity = activity_of_run(history)
    waits = activity is Activity.interrupted and bool(parked_below(children))
    return Activity.parked if waits else activity


async def _history_of(store: AnyStore, child: ChildRecord) -> RunHistory | None:
    try:
        return await read_history(store, child.run_id)
    except StorageFailure as failure:
        if failure.error.variant != "NotFound":
            raise
        return None


def parked_below(children: list[dict[str, Json]]) -> list[dict[str, Json]]:
    """The children that wait for somebody, at any depth."""
    found = []
    for child in children:
        if child["parked"]:
            found.append(child)
        below = child["children"]
        assert isinstance(below, list)
        found += parked_below([each for each in below if isinstance(each, dict)])
    return found


def parent_json(history: RunHistory) -> dict[str, Json] | None:
    """Whose child a run is; None for a run that somebody started."""
    child_of = history.child_of
    if child_of is None:
        return None
    return {
        "run_id": str(child_of.parent_run_id),
        "fact_key": str(child_of.fact_key),
        "depth": child_of.depth,
    }
