"""How far a long command is: redrawn on a terminal, in lines elsewhere."""

import io
from pathlib import Path

import pytest

from mfm_ops.cli.gauge import Gauge


class Screen(io.StringIO):
    """A stream that says that it is a terminal; `line` is what its last line shows."""

    def isatty(self) -> bool:
        return True

    @property
    def line(self) -> str:
        return self.getvalue().rpartition("\r\x1b[K")[2]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_the_line_says_how_many_of_how_many_and_from_a_second_on_how_fast() -> None:
    screen, clock = Screen(), Clock()
    gauge = Gauge(screen, clock)
    gauge.tell("events read", 0, 50_000)
    assert screen.line == ".. events read 0 of 50,000  0%"
    clock.now += 2
    gauge.tell("events read", 20_000, 50_000)
    assert screen.line == ".. events read 20,000 of 50,000  40%  10,000/s  4 s left"
    clock.now += 2
    gauge.tell("events read", 50_000, 50_000)
    assert screen.line == ".. events read 50,000 of 50,000  100%  12,500/s"


def test_bytes_are_told_in_megabytes() -> None:
    screen, clock = Screen(), Clock()
    gauge = Gauge(screen, clock)
    gauge.tell("bytes read", 0, 40_000_000)
    clock.now += 10
    gauge.tell("bytes read", 10_000_000, 40_000_000)
    assert screen.line == ".. bytes read 10.0 MB of 40.0 MB  25%  1.0 MB/s  31 s left"


def test_it_is_drawn_at_most_ten_times_a_second() -> None:
    screen, clock = Screen(), Clock()
    gauge = Gauge(screen, clock)
    for done in range(1000):
        clock.now += 0.001
        gauge.tell("events read", done, 1001)
    assert screen.getvalue().count("\r") <= 11


def test_nothing_is_left_of_it_on_the_terminal() -> None:
    screen = Screen()
    gauge = Gauge(screen)
    gauge.erase()
    assert screen.getvalue() == ""
    gauge.tell("events read", 1, 2)
    gauge.erase()
    assert screen.line == ""
    assert "\n" not in screen.getvalue()


def test_the_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    screen = Screen()
    Gauge(screen).tell("artifacts written", 1, 1_000_000)
    assert len(screen.line) == 19


@pytest.mark.parametrize("dumb", [True, False])
def test_without_a_terminal_that_can_redraw_each_tenth_is_a_line(
    monkeypatch: pytest.MonkeyPatch, dumb: bool
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Screen() if dumb else io.StringIO()
    gauge = Gauge(stream)
    for done in range(1, 101):
        gauge.tell("states replayed", done, 100)
    gauge.erase()
    lines = stream.getvalue().splitlines()
    assert lines[0] == ".. states replayed 1/100"
    assert lines[-1] == ".. states replayed 100/100"
    assert len(lines) == 11


def test_a_stream_that_cannot_be_written_ends_nothing() -> None:
    stream = Path("/dev/full").open("w")  # noqa: SIM115 - closing it fails too
    Gauge(stream).tell("events read", 1, 2)
    with pytest.raises(OSError, match="No space left"):
        stream.close()
    Gauge(stream).tell("events read", 1, 2)
