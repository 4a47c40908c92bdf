"""What is told at standard error while a run goes on, and that nobody waits for it.

The stream is put in place within each test: between a fixture and its test, pytest puts its own
back.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from io import StringIO
from threading import Thread, Timer
from typing import NamedTuple, NoReturn

import pytest

from mfm_ops.cli.progress import Teller

MEBI = 1 << 20


class Stream:
    """Stands for `sys.stderr`: what the teller needs of it."""

    encoding = "ascii"

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


class Pipe(NamedTuple):
    reading: int
    writing: int

    def read(self, size: int) -> bytes:
        """The next `size` bytes."""
        data = b""
        while len(data) < size:
            data += os.read(self.reading, size - len(data))
        return data


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    ends = Pipe(*os.pipe())
    yield ends
    for fd in ends:
        with contextlib.suppress(OSError):
            os.close(fd)


def in_the_place_of_stderr(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)


def closing(teller: Teller) -> Thread:
    thread = Thread(target=teller.close, daemon=True)
    thread.start()
    return thread


def test_what_was_said_is_written_in_order_when_it_is_closed(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_place_of_stderr(Stream(pipe.writing), monkeypatch)
    teller = Teller()
    teller.say("one\n")
    teller.say("two \u20ac\n")
    teller.close()
    assert os.read(pipe.reading, 100) == b"one\ntwo \\u20ac\n"


@pytest.mark.parametrize("blocking", [True, False])
def test_a_reader_that_is_slow_holds_up_nobody_and_gets_all(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, blocking: bool
) -> None:
    in_the_place_of_stderr(Stream(pipe.writing), monkeypatch)
    os.set_blocking(pipe.writing, blocking)
    teller = Teller()
    for letter in "abc":
        # More than any pipe holds; nobody reads yet.
        teller.say(letter * MEBI)
    closer = closing(teller)
    assert pipe.read(3 * MEBI) == b"".join(bytes([code]) * MEBI for code in b"abc")
    closer.join(10)
    assert not closer.is_alive()


def test_what_nobody_reads_is_kept_up_to_a_bound_only(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_place_of_stderr(Stream(pipe.writing), monkeypatch)
    teller = Teller()
    for _ in range(40):
        teller.say("x" * MEBI)
    closer = closing(teller)
    # The last one is taken while no more than the bound is kept.
    assert pipe.read(17 * MEBI) == b"x" * (17 * MEBI)
    closer.join(10)
    assert not closer.is_alive()
    os.set_blocking(pipe.reading, False)
    with pytest.raises(BlockingIOError):
        os.read(pipe.reading, 1)


def test_a_reader_that_came_back_is_told_on(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_place_of_stderr(Stream(pipe.writing), monkeypatch)
    teller = Teller()
    for _ in range(40):
        teller.say("x" * MEBI)
    pipe.read(17 * MEBI)
    said = Thread(target=pipe.read, args=(MEBI,), daemon=True)
    said.start()
    # How much of the last one is counted as told is known a moment after it was read.
    while said.is_alive():
        teller.say("y" * MEBI)
        said.join(0.01)
    closer = closing(teller)
    while closer.is_alive():
        os.set_blocking(pipe.reading, False)
        try:
            os.read(pipe.reading, MEBI)
        except BlockingIOError:
            closer.join(0.01)


def test_ctrl_c_gives_up_the_waiting_alone(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_place_of_stderr(Stream(pipe.writing), monkeypatch)
    teller = Teller()
    teller.say("x" * MEBI)
    main = threading.get_ident()
    ctrl_c = Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
    ctrl_c.start()
    teller.close()
    ctrl_c.join()
    assert pipe.read(MEBI) == b"x" * MEBI


def test_a_reader_that_is_gone_is_told_nothing_more(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_place_of_stderr(Stream(pipe.writing), monkeypatch)
    os.close(pipe.reading)
    teller = Teller()
    teller.say("one\n")
    teller.say("x" * MEBI)
    teller.close()


def test_a_stream_without_a_descriptor_is_told_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = StringIO()
    in_the_place_of_stderr(stream, monkeypatch)
    teller = Teller()
    teller.say("one\n")
    teller.say("two \u20ac\n")
    teller.close()
    assert stream.getvalue() == "one\ntwo \u20ac\n"


def test_where_no_thread_is_to_be_had_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(Thread, "start", refuse)
        teller = Teller()
        teller.say("one\n")
    teller.close()
