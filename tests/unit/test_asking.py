"""A program that is asked one thing: what counts as its answer, and that nothing of it is left."""

import os
import time
from pathlib import Path

from mfm_ops.sdk.asking import Question, ask
from tests.integration.mfm_process import a_long_time, processes_with


def asked(script: str, timeout_s: float) -> Question:
    question = ask(["/bin/sh", "-c", script], {"PATH": os.defpath}, timeout_s)
    assert question is not None
    return question


def test_an_answer_that_came_in_time_counts_however_late_it_is_looked_at() -> None:
    question = asked("echo here", 0.5)
    time.sleep(0.8)
    assert question.answer() == b"here\n"
    assert not question.timed_out


def test_after_the_deadline_nobody_waits_for_more() -> None:
    question = asked("yes", 0.2)
    time.sleep(0.3)
    began = time.monotonic()
    assert question.answer() is None
    assert question.timed_out
    assert time.monotonic() - began < 5


def test_what_a_wrapper_started_ends_with_it() -> None:
    marker = a_long_time()
    # The leader is gone, its child holds the pipe.
    question = asked(f"sleep {marker} & exit 0", 0.2)
    assert question.answer() is None
    assert question.timed_out
    deadline = time.monotonic() + 10
    while processes_with(marker):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_cannot_be_started_is_no_question() -> None:
    assert ask(["/nowhere"], {}, 1) is None
    assert ask(["/bin/true"], {}, 1, Path("/nowhere")) is None
