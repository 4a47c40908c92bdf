"""A line on standard error for each state that begins, ends or fails.

It is told of events once they are durable, so it never shows what a crash could take back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from mfm_ops.cli.output import Painter, escape, write

if TYPE_CHECKING:
    from mfm_ops.machine.events import EventEnvelope

__all__ = ["pass_through", "progress"]


def progress() -> Callable[[EventEnvelope], None]:
    """An observer that writes to this process's standard error."""
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
        write(line, sys.stderr)
        sys.stderr.flush()

    return observe


def pass_through(data: bytes) -> None:
    """A program's standard error, live: with its line breaks, without what a terminal obeys."""
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    sys.stderr.write("\n".join(escape(line.replace("\t", "    ")) for line in text.split("\n")))
    sys.stderr.flush()
