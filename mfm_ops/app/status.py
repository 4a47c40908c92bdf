"""Where a run stands, as plain JSON: its phase, its states, what failed and what is in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfm_ops.app.family import (
    activity_with_children,
    children_json,
    parent_json,
    parked_below,
)
from mfm_ops.app.reports import member, read_history, resolve_run
from mfm_ops.app.standing import activity_of_state
from mfm_ops.machine.canonical import Json, parse_strict
from mfm_ops.machine.codes import hint_for

if TYPE_CHECKING:
    from mfm_ops.app.reports import AnyStore
    from mfm_ops.machine.errors import StateError
    from mfm_ops.runtime.records import Intent, RunHistory, StateRecord

__all__ = ["error_json", "run_status"]


async def run_status(store: AnyStore, reference: str) -> dict[str, Json]:
    """Where a run stands: phase, states, failure, driver."""
    run_id = await resolve_run(store, reference)
    history = await read_history(store, run_id)
    failed = history.failure if history.status is not None else None
    children = await children_json(store, history)
    activity = await activity_with_children(store, history)
    return {
        "run_id": str(run_id),
        "op_id": str(history.op_id),
        "phase": history.phase.value,
        "activity": activity,
        "parked": history.parked,
        "manifest_id": str(history.manifest_id),
        "head_seq": history.head_seq,
        "started_ts_millis": history.started_ts_millis,
        "ended_ts_millis": history.ended_ts_millis,
        "duration_ms": _span(history.started_ts_millis, history.ended_ts_millis),
        "states": [
            {**_state_json(state), "activity": activity_of_state(state, history, activity)}
            for state in history.states.values()
        ],
        "failure": error_json(failed) if failed else None,
        "facts": len(history.facts),
        "waits_for": [str(key) for key in history.unknown_effects],
        "unknown_effects": [
            await _effect_json(store, intent) for intent in history.unknown_effects.values()
        ],
        "forked_from": _fork_json(history),
        "child_of": parent_json(history),
        "children": [*children],
        "parked_children": [child["run_id"] for child in parked_below(children)],
        "cancel_requested": history.cancel_requested,
        "driver": _driver_json(history),
        "final_snapshot_id": _text_or_none(history.final_snapshot_id),
    }


async def _effect_json(store: AnyStore, intent: Intent) -> dict[str, Json]:
    """An effect of unknown outcome: whose it is, and what was sent."""
    sent = parse_strict(await store.get(intent.request_id))
    return {
        "key": str(intent.key),
        "state_id": _text_or_none(intent.state_id),
        "request_id": str(intent.request_id),
        "namespace": member(sent, "namespace"),
        "request": member(sent, "request"),
    }


def _fork_json(history: RunHistory) -> dict[str, Json] | None:
    fork = history.forked_from
    return None if fork is None else {"run_id": str(fork.run_id), "state_id": str(fork.state_id)}


def error_json(error: StateError) -> dict[str, Json]:
    """A state's error with what to do about it."""
    info = error.info
    return {
        "state_id": _text_or_none(error.state_id),
        "code": str(info.code),
        "message": info.message,
        "retryable": info.retryable,
        "details": info.details,
        "hint": hint_for(info.code),
    }


def _state_json(state: StateRecord) -> dict[str, Json]:
    return {
        "state_id": str(state.state_id),
        "status": state.status.value,
        "attempts": state.attempts,
        "duration_ms": _span(state.entered_ts_millis, state.ended_ts_millis),
        "snapshot_id": _text_or_none(state.snapshot_id),
        "failure_snapshot_id": _text_or_none(state.failure_snapshot_id),
        "error": error_json(state.error) if state.error else None,
    }


def _driver_json(history: RunHistory) -> dict[str, Json] | None:
    """The driver at work, or the one that left without a word; None when nobody should be."""
    from mfm_ops.runtime.driver import Liveness, liveness

    driver = history.driver
    if driver is None or history.status is not None:
        return None
    shown = {name: driver.get(name) for name in ("driver_id", "host", "pid")}
    known = liveness(driver)
    # `alive` is what a resume goes by: who may be at work is not to be disturbed.
    return {**shown, "alive": known is not Liveness.gone, "liveness": known}


def _span(start: int | None, end: int | None) -> int | None:
    # A clock may have been set back in between.
    return None if start is None or end is None else max(end - start, 0)


def _text_or_none(value: str | None) -> str | None:
    return None if value is None else str(value)
