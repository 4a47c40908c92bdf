"""Tells a handler's own failure from an end that came from outside.

What is recorded of a failure is left to `attempt`, and to `verdict_attempt` in a replay.
"""

import asyncio

from anyio.lowlevel import checkpoint_if_cancelled

__all__ = ["raise_what_came_from_outside"]


async def raise_what_came_from_outside(error: BaseException) -> None:
    """An attempt that is cut short has not failed, whatever its handler makes of that.

    Its own `sys.exit()` is its failure, and so is a cancellation among its own tasks only: for
    these, as for every other `error` that the handler raised by itself, this returns.
    """
    await checkpoint_if_cancelled()
    if isinstance(error, (Exception, BaseExceptionGroup, SystemExit)):
        return
    task = asyncio.current_task()
    cancelled = task is None or task.cancelling() > 0
    if cancelled or not isinstance(error, asyncio.CancelledError):
        raise error
