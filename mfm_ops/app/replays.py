"""`mfm run replay`: a stored run, the installed ops, and the verdict on both.

The store is opened for reading alone, and no transport is made. Executing and comparing is left
to `runtime.verdict`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from mfm_ops.app.signals import run_past_exits
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import RunError, RunFailure

if TYPE_CHECKING:
    from types import FrameType

    from mfm_ops.app.core import App
    from mfm_ops.app.reports import AnyStore
    from mfm_ops.machine.ids import RunId, StateId
    from mfm_ops.runtime.verdict_model import ReplayVerdict

    Tell = Callable[[str, int, int], None]

__all__ = ["replay_run"]

# A handler that goes on past the first alarm meets the next.
_AGAIN_S: Final = 1.0
# The timer counts microseconds, and none at all would be no timer.
_LEAST_S: Final = 0.000_001
_EVENTS_AT_ONCE: Final = 512


class _Overdue(KeyboardInterrupt):
    """Time is up. Like Ctrl-C it passes through handlers, task groups and the event loop."""


class _Progress:
    """Where a replay is; `tell` hears how far."""

    def __init__(self, tell: Tell | None) -> None:
        self.run_id: RunId | None = None
        self.state_id: StateId | None = None
        self._tell = tell
        self._places: dict[StateId, int] = {}

    def on_events(self, read: int, total: int) -> None:
        if self._tell is not None:
            self._tell("events read", read, total)

    def begin(self, states: list[StateId]) -> None:
        self._places = {state_id: place for place, state_id in enumerate(states)}

    def on_state(self, state_id: StateId) -> None:
        self.state_id = state_id
        if self._tell is not None:
            self._tell("states replayed", self._places[state_id], len(self._places))

    def end(self) -> None:
        if self._tell is not None:
            self._tell("states replayed", len(self._places), len(self._places))


def replay_run(
    app: App, reference: str, *, timeout_s: float | None = None, tell: Tell | None = None
) -> dict[str, Any]:
    """The verdict on a run, named as in `reports.resolve_run`; for the main thread.

    It is the JSON of a `ReplayVerdict`. `tell` is told what is done, how much of it, of how much.

    Raises:
        RunFailure: `plan_changed`; `replay_timeout` after `timeout_s` seconds, naming the state
            whose handler was at work.
        SettingsFailure, StorageFailure: the run, its op or its data is not there.
        KeyboardInterrupt: Ctrl-C, at once: nothing has to be cleaned up.
    """
    progress = _Progress(tell)
    try:
        with app.store_to_read() as store, _stoppable(timeout_s):
            verdict = run_past_exits(_replay(app, store, reference, progress))
    except _Overdue:
        info = error_info(
            "replay_timeout",
            "the replay did not end in time",
            run_id=progress.run_id,
            state_id=progress.state_id,
            timeout_ms=round((timeout_s or 0) * 1000),
        )
        raise RunFailure(RunError(Other=info)) from None
    return verdict.model_dump(mode="json")


async def _replay(app: App, store: AnyStore, reference: str, progress: _Progress) -> ReplayVerdict:
    from mfm_ops.app.reports import collector_paused, load_manifest, read_history, resolve_run
    from mfm_ops.machine.engine import Stores
    from mfm_ops.runtime.verdict import ReplayEnv, replay
    from mfm_ops.runtime.verdict_record import RecordingBuilder
    from mfm_ops.sdk.planner import build_plan

    run_id = progress.run_id = await resolve_run(store, reference)
    manifest, _ = await load_manifest(store, run_id)
    builder = RecordingBuilder(run_id)
    head = await store.head_seq(run_id)
    with collector_paused():
        async for envelope in store.iter_events(run_id):
            builder.feed(envelope)
            if envelope.seq % _EVENTS_AT_ONCE == 0:
                progress.on_events(envelope.seq, max(head, envelope.seq))
    recording = builder.done()
    progress.begin([attempt.state_id for attempt in recording.attempts])
    source = manifest.run_config.replay_of
    env = ReplayEnv(
        stores=Stores(events=store, artifacts=store),
        plan=build_plan(manifest, app.ops),
        config=manifest.run_config,
        build=app.build(),
        source=None if source is None else await read_history(store, source),
        on_state=progress.on_state,
    )
    verdict = await replay(recording, env)
    progress.end()
    return verdict


@contextmanager
def _stoppable(timeout_s: float | None) -> Iterator[None]:
    """Ctrl-C, and an alarm after `timeout_s`, end even a handler that never waits.

    The event loop's own way would wait for the handler to wait.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise _Overdue if number == signal.SIGALRM else KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGALRM)
    }
    try:
        # Within, since so short a time may be up at once.
        if timeout_s is not None:
            signal.setitimer(signal.ITIMER_REAL, max(timeout_s, _LEAST_S), _AGAIN_S)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
