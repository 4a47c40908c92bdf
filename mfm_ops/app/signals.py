"""Runs asynchronous work until it is done or a signal asks for its end."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mfm_ops.machine.ids import RunId

__all__ = ["Interrupted", "Seen", "run_past_exits", "until_signalled"]

T = TypeVar("T")


class Interrupted(Exception):
    """A signal ended the work; `run_id` can be resumed, None if nothing of it is stored."""

    def __init__(self, signal_number: int, run_id: RunId | None) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number
        self.run_id = run_id


class Seen:
    """Which run is driven, as far as its durable events have told."""

    def __init__(self) -> None:
        self.run_id: RunId | None = None


def until_signalled(work: Callable[[], Awaitable[T]], seen: Seen) -> T:
    """Run `work` in an event loop; SIGINT, SIGTERM or SIGHUP cancels it and awaits its cleanup.

    The engine's cleanup is bounded, so further signals change nothing.

    Raises:
        Interrupted: a signal came before `work` was done.
    """
    import asyncio

    import anyio

    async def main() -> T:
        received: list[int] = []
        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:

            def stop(number: int) -> None:
                received.append(number)
                scope.cancel()

            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, stop, number)
            return await work()
        raise Interrupted(received[0], seen.run_id)

    return run_past_exits(main())


def run_past_exits(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, but `sys.exit()` in a task that `work` started is that task's failure.

    asyncio ends the loop for it, and so would the process end with a code that an op chose: 0 says
    that a run is done which has just been cut short.
    """
    import asyncio

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(work)
        while True:
            try:
                return loop.run_until_complete(task)
            except SystemExit:
                if task.done():
                    raise
