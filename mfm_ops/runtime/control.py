"""What others than its driver do to a run: ask for its end, say what became of an effect.

Each is an append: nothing is locked, and a driver that lives reads it. Taking a run over is left
to `executor`, going on from it in a new run to `fork`.
"""

from collections.abc import Callable
from typing import NamedTuple

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import Json, parse_canonical
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.errors import RunError, RunFailure, StateError
from mfm_ops.machine.events import (
    DOMAIN_EVENT_FACT_RECORDED,
    EVENT_CANCEL_REQUESTED,
    EVENT_EFFECT_RESOLVED,
    EVENT_EFFECT_UNKNOWN,
    DomainEvent,
    KernelEvent,
    RunCompleted,
    RunStatus,
    StateFailed,
)
from mfm_ops.machine.ids import FactKey, RunId, StateId
from mfm_ops.runtime.driver import is_alive
from mfm_ops.runtime.follow import follow
from mfm_ops.runtime.history import Folding
from mfm_ops.runtime.persist import Persister, Refused, scanned_canonical_bytes
from mfm_ops.runtime.records import Intent, Resolution, RunHistory, StateStatus
from mfm_ops.runtime.writer import CancelRequested, RunWriter

__all__ = ["Requester", "close_cancelled", "request_cancel", "resolve_effect"]

# Between reading a stream and appending to it there are milliseconds; a driver may write in each.
TRIES = 1000


class Requester(NamedTuple):
    """Who asks, why, and by which clock; `why` may be empty."""

    who: str
    why: str
    now_millis: Callable[[], int]


async def request_cancel(stores: Stores, run_id: RunId, asks: Requester) -> RunHistory:
    """Ask for the run to be cancelled, unless somebody has; where the run stands then.

    A driver that lives ends the run. Where none does, resuming the run ends it, or
    `close_cancelled`.

    Raises:
        RunFailure: `run_over`, `secrets_detected`.
        StorageFailure: `run_not_found`; the store failed.
    """
    said = _said({"who": asks.who, "why": asks.why})

    def request(history: RunHistory, writer: RunWriter) -> None:
        if history.status is not RunStatus.Cancelled:
            _refuse_over(history)
        if not history.cancel_requested and history.status is None:
            writer.add_domain(DomainEvent(name=EVENT_CANCEL_REQUESTED, payload=said))

    return await _append(stores, run_id, asks, request)


async def close_cancelled(stores: Stores, run_id: RunId, asks: Requester) -> RunHistory:
    """End a run whose cancellation was requested, without its plan and without a driver.

    For a run that cannot be resumed: its op is gone, or has changed. Its contexts are not merged,
    so it has no final snapshot. Its children are ended first, or asked to where a driver lives.

    Raises: as `request_cancel`.
    """
    history = await follow(stores.events, Folding(run_id))
    for child in history.open_children:
        if await stores.events.head_seq(child.run_id):
            await _close_child(stores, child.run_id, asks)

    def close(history: RunHistory, writer: RunWriter) -> None:
        if history.status is not None:
            return
        for state in history.states.values():
            if state.status is not StateStatus.running:
                continue
            for intent in list(history.open_intents.values()):
                if intent.state_id == state.state_id and intent.key not in history.unknown_effects:
                    payload: dict[str, Json] = {
                        "key": str(intent.key),
                        "request_id": str(intent.request_id),
                    }
                    event = DomainEvent(name=EVENT_EFFECT_UNKNOWN, payload=payload)
                    writer.add_domain(event, state.state_id, state.attempts - 1)
            info = error_info("run_cancelled", "the run was cancelled during this attempt")
            error = StateError(state_id=state.state_id, info=info)
            writer.add_kernel(
                KernelEvent(StateFailed=StateFailed(state_id=state.state_id, error=error))
            )
        writer.add_kernel(KernelEvent(RunCompleted=RunCompleted(status=RunStatus.Cancelled)))

    return await _append(stores, run_id, asks, close)


async def _close_child(stores: Stores, run_id: RunId, asks: Requester) -> None:
    try:
        history = await request_cancel(stores, run_id, asks)
    except RunFailure as failure:
        if failure.info.code != "run_over":
            raise
        return
    if history.status is None and (history.driver is None or not is_alive(history.driver)):
        await close_cancelled(stores, run_id, asks)


async def resolve_effect(
    stores: Stores,
    run_id: RunId,
    state_id: StateId,
    resolution: Resolution,
    asks: Requester,
    *,
    result: Json = None,
    key: FactKey | None = None,
) -> RunHistory:
    """Say what became of an effect of unknown outcome; the run goes on when it is resumed.

    `result` is what the call answered, for a completed effect; `key` chooses among several
    effects of one state.

    Raises:
        RunFailure: `run_over`, `run_busy` while a driver lives, `effect_not_unknown`,
            `secrets_detected`, `io_response_invalid`.
        StorageFailure: `run_not_found`; the store failed.
    """
    persister = Persister(stores.artifacts)
    try:
        payload = await persister.scanned(result, "io_response_invalid")
    except Refused as refused:
        raise RunFailure(RunError(Other=refused.info)) from None
    completed = resolution is Resolution.completed
    payload_id = await persister.trusted(ArtifactKind.FactPayload, payload) if completed else None
    said = _said({"as": resolution.value, "who": asks.who, "why": asks.why})
    history = await follow(stores.events, Folding(run_id))
    chosen = _effect_in_doubt(history, state_id, key)
    request = parse_canonical(await stores.artifacts.get(chosen.request_id))
    namespace = request.get("namespace") if isinstance(request, dict) else None

    def resolve(history: RunHistory, writer: RunWriter) -> None:
        intent = _effect_in_doubt(history, state_id, chosen.key)
        attempt = history.states[state_id].attempts - 1
        about: dict[str, Json] = {"key": str(intent.key), "request_id": str(intent.request_id)}
        event = DomainEvent(name=EVENT_EFFECT_RESOLVED, payload={**about, **said})
        writer.add_domain(event, state_id, attempt)
        if payload_id is not None:
            meta: dict[str, Json] = {
                "source": "resolved",
                "transport": namespace,
                "request_id": str(intent.request_id),
            }
            fact: dict[str, Json] = {
                "key": str(intent.key),
                "payload_id": str(payload_id),
                "meta": meta,
            }
            event = DomainEvent(name=DOMAIN_EVENT_FACT_RECORDED, payload=fact)
            writer.add_domain(event, state_id, attempt)

    return await _append(stores, run_id, asks, resolve)


def _effect_in_doubt(history: RunHistory, state_id: StateId, key: FactKey | None) -> Intent:
    """The effect that is to be resolved; one that a dead driver announced counts as well."""
    _refuse_over(history)
    if history.driver is not None and is_alive(history.driver):
        who = {name: history.driver[name] for name in ("driver_id", "pid", "host")}
        raise _failure("run_busy", "a process still drives this run", history, **who)
    announced = {i.key: i for i in (*history.open_intents.values(), *history.in_doubt(state_id))}
    found = {k: i for k, i in announced.items() if i.state_id == state_id and key in (None, k)}
    if not found:
        about: dict[str, Json] = {"state_id": str(state_id)}
        if key is not None:
            about["key"] = str(key)
        raise _failure("effect_not_unknown", "no such effect is in doubt", history, **about)
    if len(found) > 1:
        raise _failure(
            "effect_not_unknown",
            "several effects of this state are in doubt; name one by its key",
            history,
            state_id=str(state_id),
            keys=[str(each) for each in found],
        )
    return next(iter(found.values()))


async def _append(
    stores: Stores,
    run_id: RunId,
    asks: Requester,
    decide: Callable[[RunHistory, RunWriter], None],
) -> RunHistory:
    """Append what `decide` finds right for the history as it stands; the history after that."""
    folding = Folding(run_id)
    for tries_left in reversed(range(TRIES)):
        history = await follow(stores.events, folding)
        writer = RunWriter(stores.events, run_id, history.head_seq, now_millis=asks.now_millis)
        decide(history, writer)
        if not writer.has_pending:
            break
        try:
            await writer.flush()
        except CancelRequested:
            pass
        except RunFailure as failure:
            # Whoever drives the run wrote in between: decide again.
            if failure.info.code != "run_fenced" or not tries_left:
                raise
            continue
        break
    return await follow(stores.events, folding)


def _said(payload: dict[str, Json]) -> dict[str, Json]:
    """What a person says, as an event may hold it."""
    try:
        scanned_canonical_bytes(payload, "event_invalid")
    except Refused as refused:
        raise RunFailure(RunError(Other=refused.info)) from None
    return payload


def _refuse_over(history: RunHistory) -> None:
    if history.status is not None:
        raise _failure("run_over", "the run has ended", history, phase=history.phase.value)


def _failure(code: str, message: str, history: RunHistory, **details: Json) -> RunFailure:
    return RunFailure(RunError(Other=error_info(code, message, run_id=history.run_id, **details)))
