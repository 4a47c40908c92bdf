"""Runs the states that are ready at once, as many as the run config allows.

What each state sees does not depend on the order in which they happen to end: that is decided in
`merging`. Running one state is left to `walk`.
"""

import asyncio

import anyio
from anyio.abc import TaskGroup

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import OnStateFailure
from mfm_ops.machine.plan import StateNode
from mfm_ops.runtime.walk import RunParked, StateFailedForGood, Walk
from mfm_ops.runtime.writer import CancelRequested

__all__ = ["fan_out"]


async def fan_out(walk: Walk, max_concurrency: int, on_failure: OnStateFailure) -> None:
    """Execute all states that are left.

    Raises:
        RunParked, StateFailedForGood: as `Walk.execute`, once the other states have ended. Parking
            comes first: a run that has ended can have no effect resolved.
        CancelRequested: the run is to end; the states were stopped where they stood.
    """
    await _FanOut(walk, max(1, max_concurrency), on_failure).run()


class _FanOut:
    def __init__(self, walk: Walk, max_concurrency: int, on_failure: OnStateFailure) -> None:
        self._walk = walk
        self._frontier = walk.frontier()
        self._free = max_concurrency
        self._on_failure = on_failure
        self._failed = self._parked = self._cancelled = self._interrupted = False

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            self._start_ready(tasks)
        if self._cancelled:
            raise CancelRequested
        if self._interrupted:
            # A task group takes no notice of a task that was cancelled past its own scope.
            raise asyncio.CancelledError
        if self._parked:
            raise RunParked
        if self._failed or self._frontier:
            # Stopped where nothing ran that could have failed: what is left will not run.
            raise StateFailedForGood

    def _start_ready(self, tasks: TaskGroup) -> None:
        while self._free and self._frontier and not self._ending:
            self._free -= 1
            tasks.start_soon(self._one, tasks, self._walk.node(self._frontier.pop()))

    @property
    def _ending(self) -> bool:
        return self._failed or self._parked or self._cancelled or self._walk.stopped is not None

    async def _one(self, tasks: TaskGroup, node: StateNode) -> None:
        try:
            await self._walk.execute(node)
        except CancelRequested:
            self._cancelled = True
            tasks.cancel_scope.cancel()
        except asyncio.CancelledError:
            self._interrupted = True
            tasks.cancel_scope.cancel()
            raise
        except RunParked:
            self._parked = True
        except StateFailedForGood:
            self._fail(node)
        else:
            self._frontier.completed(node.id)
        self._free += 1
        self._start_ready(tasks)

    def _fail(self, node: StateNode) -> None:
        first = not self._failed
        self._failed = True
        if first and self._on_failure is OnStateFailure.CancelRunning:
            self._walk.stop(
                error_info("state_cancelled", "another state failed", failed=str(node.id))
            )
