"""A program that is asked one thing: bounded in time and output, all of its processes gone after.

What is asked, and what an answer means, is left to `git` and `nix`. Loaded only where something
is asked.
"""

import atexit
import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["MAX_ANSWER_BYTES", "Question", "ask"]

MAX_ANSWER_BYTES: Final = 64 << 20
_CHUNK_BYTES: Final = 1 << 16


class Question:
    """A program that was started; `answer` must be called, and ends it.

    So does the end of this process, where Ctrl-C came first: a group of its own does not hear that.
    `timed_out` tells that it was not waited for until it ended, for this or for lack of time.
    """

    def __init__(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        self._process = process
        self._deadline = deadline
        self.timed_out = False
        atexit.register(self._give_up)

    def answer(self, ok: Sequence[int] = (0,)) -> bytes | None:
        """What it printed; None if it failed, printed too much or did not end in time."""
        output = None
        with self._process as process:
            try:
                output = self._read()
                if output is not None:
                    process.wait(max(0.0, self._left_s()))
            except subprocess.TimeoutExpired:
                self.timed_out = True
            finally:
                self._end()
                atexit.unregister(self._give_up)
        return output if process.returncode in ok else None

    def _give_up(self) -> None:
        # Whoever still looks, in a thread, is not to ask on.
        self.timed_out = True
        self._end()

    def _end(self) -> None:
        if self._process.returncode is None:
            # The whole group, since a wrapper leaves behind what it started. Its leader was not
            # waited for, so the number still means this group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _left_s(self) -> float:
        return self._deadline - time.monotonic()

    def _read(self) -> bytes | None:
        stream = self._process.stdout
        assert stream is not None
        poller = select.poll()
        poller.register(stream, select.POLLIN)
        chunks: list[bytes] = []
        size_bytes = late_bytes = 0
        while size_bytes <= MAX_ANSWER_BYTES:
            # What was printed in time counts, however late it is looked at: it is in the pipe.
            left_s = max(0.0, self._left_s())
            if late_bytes > _CHUNK_BYTES or not poller.poll(left_s * 1000):
                self.timed_out = True
                return None
            chunk = os.read(stream.fileno(), _CHUNK_BYTES)
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)
            size_bytes += len(chunk)
            late_bytes += 0 if left_s else len(chunk)
        return None


def ask(
    command: Sequence[str],
    environ: Mapping[str, str],
    timeout_s: float,
    cwd: Path | None = None,
) -> Question | None:
    """Start `command`; None where that is impossible."""
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
    except (OSError, ValueError):
        return None
    return Question(process, time.monotonic() + timeout_s)
