"""A state's execution under way, and the handle by which others stop it.

Who stops a state, and why, is left to `drive` and `fan_out`; what its end looks like to `attempt`.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from mfm_ops.machine.errors import ErrorInfo
from mfm_ops.machine.ids import ArtifactId, FactKey, StateId
from mfm_ops.runtime.live_io import LiveIo

__all__ = ["RunningState"]


class RunningState:
    """One state between its first attempt and its end.

    `reason` is why it was stopped, if it was; `open` whether an attempt has begun and not ended;
    `deadline` when the attempt's time is up, by the event loop's clock.
    """

    def __init__(self, state_id: StateId) -> None:
        self.state_id = state_id
        self.attempt = 0
        self.open = False
        self.deadline: float | None = None
        self.reason: ErrorInfo | None = None
        self._io: LiveIo | None = None
        self._scope: anyio.CancelScope | None = None

    def begin(self, attempt: int, io: object, deadline: float | None) -> None:
        """An attempt begins, with the IO that its handler gets."""
        self.attempt, self.deadline, self.open = attempt, deadline, True
        self._io = io if isinstance(io, LiveIo) else None
        if self._io is not None:
            self._io.when_settled = self._obey

    def end(self) -> None:
        """The attempt has ended: its end is buffered or durable."""
        self.open, self.deadline = False, None
        if self.reason is not None and self.reason.retryable:
            # It was the attempt's alone; what comes next is not to be stopped for it.
            self.reason = None

    @property
    def in_doubt(self) -> list[tuple[FactKey, ArtifactId]]:
        """The effects that the open attempt has announced and not settled: key and request."""
        return list(self._io.in_doubt.items()) if self._io is not None and self.open else []

    def told(self) -> None:
        """What is in doubt was said, and is not said again."""
        if self._io is not None:
            self._io.in_doubt.clear()

    def stop(self, reason: ErrorInfo) -> None:
        """Stop the handler, or the wait for its next attempt; an effect in flight ends first."""
        # What ends the run outweighs what only ends an attempt.
        if self.reason is None or self.reason.retryable:
            self.reason = reason
        self._obey()

    def _obey(self) -> None:
        # Stopping an effect would leave its outcome unknown; its own timeout bounds it.
        if self.reason is not None and self._scope is not None and not self.in_doubt:
            self._scope.cancel()

    @contextmanager
    def stoppable(self) -> Iterator[Callable[[], bool]]:
        """What is awaited here ends early when the state is stopped; `reason` tells.

        Yields what says, within, whether that end has reached this task.
        """
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        with anyio.CancelScope() as scope:
            self._scope = scope
            if self.reason is not None:
                scope.cancel()
            try:
                yield lambda: task is not None and task.cancelling() > before
            finally:
                self._scope = None
