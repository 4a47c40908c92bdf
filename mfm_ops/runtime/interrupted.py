"""Tells a handler's own failure from an end that came from outside.

What is recorded of a failure is left to `attempt`, and to `verdict_attempt` in a replay.
"""

import asyncio

from anyio.lowlevel import checkpoint_if_cancelled

__all__ = ["Outside"]


class Outside:
    """What may cut an attempt short from outside; made where the attempt begins, in its task."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._cancelled_before = self._times_cancelled

    async def raise_if_it_ended(self, error: BaseException) -> None:
        """An attempt that is cut short has not failed, whatever its handler makes of that.

        Ctrl-C and a cancellation come from outside, and so does the end of a coroutine that is
        thrown away. For whatever else the handler raised this returns: its own `sys.exit()` is its
        failure, and so is a cancellation among its own tasks only, or what extension modules raise
        that is no `Exception`.
        """
        if isinstance(error, KeyboardInterrupt):
            raise error
        # Thrown away, a coroutine is closed by whoever that is, and may await nothing any more.
        if isinstance(error, GeneratorExit) and not self._at_work:
            raise error
        await checkpoint_if_cancelled()
        if self._times_cancelled > self._cancelled_before:
            # Not by a scope of anyio's: asyncio's own timeouts and task groups do it like this.
            raise error if isinstance(error, asyncio.CancelledError) else asyncio.CancelledError

    @property
    def _times_cancelled(self) -> int:
        return 0 if self._task is None else self._task.cancelling()

    @property
    def _at_work(self) -> bool:
        try:
            return self._task is not None and asyncio.current_task() is self._task
        except RuntimeError:
            return False
