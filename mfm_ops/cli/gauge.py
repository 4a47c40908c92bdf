"""How far a long command is, on standard error: one line that is drawn anew, and gone at the end.

Where no terminal is, and somebody asked for it, a line for each tenth of the way. What is counted
is left to those who work.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from mfm_ops.cli.output import Painter, is_terminal, screen_width, write

if TYPE_CHECKING:
    import click

    Tell = Callable[[str, int, int], None]

__all__ = ["Gauge", "gauge", "gauge_option"]

_REDRAW_S: Final = 0.1
# A rate out of less would say nothing.
_LEAST_S: Final = 1.0
_ERASE: Final = "\r\x1b[K"


def gauge_option() -> click.Parameter:
    """What a command that may take long offers for those who wait."""
    import click

    return click.Option(
        ["--progress/--no-progress"],
        default=None,
        help="Say on standard error how far it is.  [default: on a terminal]",
    )


@contextmanager
def gauge(wanted: bool | None) -> Iterator[Tell | None]:
    """Whom to tell while the block runs: `(what, done, total)`; None where nobody wants it."""
    if not (is_terminal(sys.stderr) if wanted is None else wanted):
        yield None
        return
    shown = Gauge(sys.stderr)
    try:
        yield shown.tell
    finally:
        shown.erase()


class Gauge:
    """Shows on `stream` how far the work is; a stream that fails is left alone."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._redraws = is_terminal(stream) and os.environ.get("TERM") != "dumb"
        self._dots = Painter(stream).dim("..")
        self._what = ""
        self._began = self._drawn_at = 0.0
        self._began_with = 0
        self._tenth = -1
        self._on_screen = False

    def tell(self, what: str, done: int, total: int) -> None:
        """`done` of `total` is done of `what`, such as `events read`."""
        now = self._clock()
        another = what != self._what
        if another:
            self._what, self._began, self._began_with, self._tenth = what, now, done, -1
        with contextlib.suppress(OSError, ValueError):
            if not self._redraws:
                self._line(what, done, total)
            elif another or now - self._drawn_at >= _REDRAW_S or done == total:
                self._drawn_at, self._on_screen = now, True
                self._draw(f"{what} {self._text(done, total, now - self._began)}")

    def erase(self) -> None:
        """Leave the terminal as if nothing had been there."""
        if self._on_screen:
            self._on_screen = False
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(_ERASE)
                self._stream.flush()

    def _line(self, what: str, done: int, total: int) -> None:
        tenth = 10 * done // total if total else 10
        if tenth != self._tenth:
            self._tenth = tenth
            write(f"{self._dots} {what} {done}/{total}", self._stream)
            self._stream.flush()

    def _draw(self, text: str) -> None:
        # A line that wraps could not be drawn over.
        width = (screen_width(self._stream) or 80) - 1
        self._stream.write(f"{_ERASE}{f'.. {text}'[:width]}")
        self._stream.flush()

    def _text(self, done: int, total: int, spent_s: float) -> str:
        in_bytes = self._what.startswith("bytes ")
        amount, whole = (_size(n) if in_bytes else f"{n:,}" for n in (done, total))
        parts = [f"{amount} of {whole}", f"{100 * done // total if total else 100}%"]
        newly = done - self._began_with
        if spent_s >= _LEAST_S and newly > 0:
            rate = newly / spent_s
            parts.append(f"{_size(rate)}/s" if in_bytes else f"{rate:,.0f}/s")
            if done < total:
                parts.append(f"{_duration((total - done) / rate)} left")
        return "  ".join(parts)


def _size(count: float) -> str:
    """A number of bytes, as far as it matters.

    >>> _size(19456), _size(40_000_000)
    ('19.5 kB', '40.0 MB')
    """
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _duration(seconds: float) -> str:
    """A time to wait, as far as it matters.

    >>> _duration(7.2), _duration(75), _duration(7300)
    ('8 s', '2 min', '2 h 2 min')
    """
    if seconds <= 60:
        return f"{int(seconds) + 1} s"
    minutes = int(seconds // 60) + 1
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
