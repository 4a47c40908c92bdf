"""A clock that runs on when a test says so: deadlines pass where they are to pass, on any machine.

That a deadline is kept in real time is for `test_exec` and `test_cli_control` to show.
"""

from collections import defaultdict

import anyio
import pytest

from mfm_ops.machine.errors import ErrorInfo
from mfm_ops.runtime.running import RunningState

__all__ = ["LONG_MS", "Clock"]

LONG_MS = 3_600_000
"""A deadline that no test reaches before it lets the clock run on."""


class Clock:
    """The engine's clock; `stopped[code]` is set once the engine has stopped a state for that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stopped: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)
        self._ahead_s = 0.0
        current_time, stop = anyio.current_time, RunningState.stop

        def stop_and_tell(running: RunningState, reason: ErrorInfo) -> None:
            stop(running, reason)
            self.stopped[str(reason.code)].set()

        monkeypatch.setattr(anyio, "current_time", lambda: current_time() + self._ahead_s)
        monkeypatch.setattr(RunningState, "stop", stop_and_tell)

    def run_on(self) -> None:
        """All deadlines of `LONG_MS` that were set by now have passed."""
        self._ahead_s += LONG_MS / 1000
