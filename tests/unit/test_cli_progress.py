"""What is told at standard error while a run goes on, and that nobody waits for it."""

import os
from threading import Thread
from typing import NoReturn

import pytest

from mfm_ops.cli.progress import Teller


class Stream:
    """Stands for `sys.stderr`: what the teller needs of it."""

    encoding = "ascii"

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> int:
    reading, writing = os.pipe()
    monkeypatch.setattr("sys.stderr", Stream(writing))
    return reading


def test_a_reader_that_is_gone_is_told_nothing_more(reader: int) -> None:
    os.close(reader)
    teller = Teller()
    teller.say("one\n")
    teller.say("two\n")
    teller.close()


def test_where_no_thread_is_to_be_had_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", refuse)
    teller = Teller()
    teller.say("one\n")
    teller.close()
