"""A line on standard error for each state that begins, ends or fails, and what programs say there.

It is told of events once they are durable, so it never shows what a crash could take back. Nobody
waits for whoever reads: a terminal that was stopped must not stop deadlines and limits.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Final, TextIO

from mfm_ops.cli.output import Painter, escape

if TYPE_CHECKING:
    from mfm_ops.machine.events import EventEnvelope

__all__ = ["Teller", "pass_through", "progress"]

_MOST_CHARS: Final = 16 * 1024 * 1024


class Teller:
    """Writes to this process's standard error in a thread of its own. Close it at the end.

    What nobody has read is kept up to 16 Mi characters; after that nothing more is, for the time.
    """

    def __init__(self) -> None:
        self._texts: SimpleQueue[str | None] = SimpleQueue()
        self._thread: Thread | None = None
        # Each is changed by one thread alone.
        self._said = self._told = 0

    def say(self, text: str) -> None:
        """Have `text` written, without waiting for it."""
        if self._said - self._told > _MOST_CHARS:
            return
        if self._thread is None:
            thread = Thread(target=self._work, name="teller", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # No thread is to be had now: the run is worth more than a line about it.
                return
            self._thread = thread
        self._said += len(text)
        self._texts.put(text)

    def close(self) -> None:
        """Wait until all is written; Ctrl-C gives up that alone, not what there is to report."""
        if self._thread is not None:
            self._texts.put(None)
            with contextlib.suppress(KeyboardInterrupt):
                self._thread.join()

    def _work(self) -> None:
        write = _writer(sys.stderr)
        gone = False
        while (text := self._texts.get()) is not None:
            try:
                if not gone:
                    write(text)
            except (OSError, ValueError):
                gone = True
            self._told += len(text)


def _writer(stream: TextIO) -> Callable[[str], object]:
    """What writes to `stream`, past it: its lock would be held while the terminal is stopped."""
    try:
        fd, encoding = stream.fileno(), stream.encoding or "ascii"
    except (AttributeError, OSError, ValueError):
        # Only what stands for a stream within a process has no descriptor.
        return stream.write

    def write(text: str) -> None:
        data = text.encode(encoding, "backslashreplace")
        while data:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:
                select.select((), (fd,), ())

    return write


def progress(say: Callable[[str], None]) -> Callable[[EventEnvelope], None]:
    """An observer that says what happens."""
    paint = Painter(sys.stderr)
    entered: dict[tuple[str, str], int] = {}

    def observe(envelope: EventEnvelope) -> None:
        if envelope.event.variant != "Kernel":
            return
        kernel = envelope.event.Kernel
        now = envelope.ts_millis or 0
        match kernel.variant:
            case "RunStarted":
                line = f"run {envelope.run_id} started"
            case "StateEntered":
                # Children of one op have states of the same names.
                entered[envelope.run_id, kernel.value.state_id] = now
                attempt = kernel.value.attempt
                again = f" (attempt {attempt + 1})" if attempt else ""
                line = f"{paint.dim('..')} {kernel.value.state_id}{again}"
            case "StateCompleted":
                began = entered.get((envelope.run_id, kernel.value.state_id), now)
                took = max(now - began, 0)
                line = f"{paint.good('ok')} {kernel.value.state_id} {took} ms"
            case "StateFailed":
                code = kernel.value.error.info.code
                line = f"{paint.bad('!!')} {kernel.value.state_id} {escape(code)}"
            case _:
                line = f"run {envelope.run_id} {kernel.value.status.value.lower()}"
        say(line + "\n")

    return observe


def pass_through(say: Callable[[str], None]) -> Callable[[bytes], None]:
    """A program's standard error, live: with its line breaks, without what a terminal obeys."""

    def hand_on(data: bytes) -> None:
        text = data.decode("utf-8", "replace").replace("\r\n", "\n")
        say("\n".join(escape(line.replace("\t", "    ")) for line in text.split("\n")))

    return hand_on
