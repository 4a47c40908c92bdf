"""What a shell can offer for the next word: runs, states and artifacts of the store, newest first.

Reads a bounded number of them and makes nothing; what goes wrong is left to the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mfm_ops.app.listing import ENDED, standing
from mfm_ops.app.reports import read_history, resolve_run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mfm_ops.app.reports import AnyStore
    from mfm_ops.machine.stores import RunListing
    from mfm_ops.runtime.records import RunHistory

    Offers = list[tuple[str, str]]

__all__ = ["artifacts", "runs", "states", "states_in_doubt"]

MAX_RUNS: Final = 50
MAX_ARTIFACTS: Final = 50
# Whoever waits at a prompt does not wait for longer runs to be read.
MAX_EVENTS: Final = 2_000
MAX_EVENTS_OF_EACH: Final = 200


async def runs(store: AnyStore, prefix: str) -> Offers:
    """Run ids that begin with `prefix`, each with its op and phase; `last` where that fits."""
    found = await store.list_runs(limit=MAX_RUNS, prefix=prefix.lower())
    offers = [(str(run.run_id), await _about(store, run)) for run in found]
    if offers and "last".startswith(prefix):
        offers.insert(0, ("last", "the newest run"))
    return offers


async def _about(store: AnyStore, run: RunListing) -> str:
    parts = [str(run.op_id or "?")]
    # How a run ended costs one read; whether one goes on, all of its events.
    if run.last_event == ENDED or run.head_seq <= MAX_EVENTS_OF_EACH:
        stands = await standing(store, run)
        parts.append(stands["activity"] or stands["phase"] or run.last_event)
    return " ".join(parts).lower()


async def states(store: AnyStore, run: str, prefix: str) -> Offers:
    """States of a run, in the order in which they began; each with how it stands."""
    history = await _short_history(store, run)
    if history is None:
        return []
    return _matching(((str(s.state_id), s.status.value) for s in history.states.values()), prefix)


async def states_in_doubt(store: AnyStore, run: str, prefix: str) -> Offers:
    """States of a run whose effects somebody can resolve; each with the effect's key."""
    history = await _short_history(store, run)
    if history is None:
        return []
    intents = (*history.open_intents.values(), *history.unknown_effects.values())
    return _matching(((str(i.state_id), str(i.key)) for i in intents if i.state_id), prefix)


def _matching(offers: Iterable[tuple[str, str]], prefix: str) -> Offers:
    """Whole ids that begin with `prefix`; else last parts that do, as the commands take them."""
    found = dict(offers)
    whole = [(name, about) for name, about in found.items() if name.startswith(prefix)]
    if whole:
        return whole
    last_parts = [(name.rpartition(".")[2], about) for name, about in found.items()]
    return [(name, about) for name, about in last_parts if name.startswith(prefix)]


async def _short_history(store: AnyStore, run: str) -> RunHistory | None:
    run_id = await resolve_run(store, run)
    short = await store.head_seq(run_id) <= MAX_EVENTS
    return await read_history(store, run_id) if short else None


async def artifacts(store: AnyStore, prefix: str) -> Offers:
    """Artifacts whose id begins with `prefix`; without one, what the newest run names."""
    if prefix:
        found = await store.find_artifacts(prefix.lower(), limit=MAX_ARTIFACTS)
        kinds = [(await store.artifact_kind(one)).model_dump(mode="json") for one in found]
        return [
            (str(one), str(kind["Other"] if isinstance(kind, dict) else kind))
            for one, kind in zip(found, kinds, strict=True)
        ]
    history = await _short_history(store, "last")
    if history is None:
        return []
    offers = [(str(fact.payload_id), f"fact {fact.key}") for fact in history.facts.values()]
    offers += [
        (str(state.snapshot_id), f"context after {state.state_id}")
        for state in history.states.values()
        if state.snapshot_id is not None
    ]
    offers.append((str(history.manifest_id), "manifest"))
    return list(dict(offers[-MAX_ARTIFACTS:]).items())
