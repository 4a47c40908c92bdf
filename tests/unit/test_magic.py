"""What the first bytes of a file say."""

from pathlib import Path

import pytest

from transports.magic import HEAD_BYTES, is_native, script_interpreter

OWN = Path("/proc/self/exe").read_bytes()


@pytest.mark.parametrize(
    ("line", "interpreter"),
    [
        (b"#!/bin/sh\n", b"/bin/sh"),
        (b"#! \t/bin/sh\t-e x\n", b"/bin/sh"),
        (b"#!/bin/sh", b"/bin/sh"),
        (b"#!/bin/sh\r\n", b"/bin/sh\r"),
        (b"#!/bin/sh\0 x\n", b"/bin/sh"),
        (b"#!", b""),
        (b"#!  \n/bin/sh", b""),
        (b"#!/bin/sh -" + b"x" * 300, b"/bin/sh"),
        (b"#!/" + b"x" * 300, None),
        (b"#!/" + b"x" * 252 + b"\n", b"/" + b"x" * 252),
    ],
)
def test_the_interpreter_is_what_the_kernel_takes_for_it(
    line: bytes, interpreter: bytes | None
) -> None:
    assert script_interpreter(line[:HEAD_BYTES]) == interpreter


def test_this_python_is_native() -> None:
    assert is_native(OWN[:HEAD_BYTES], len(OWN), OWN)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, b"\0"), (4, b"\3"), (5, b"\3"), (16, b"\1\0"), (18, b"\xff\xff"), (54, b"\0\0\0\0")],
)
def test_what_the_kernel_does_not_take_is_not(offset: int, value: bytes) -> None:
    head = OWN[:offset] + value + OWN[offset + len(value) : HEAD_BYTES]
    assert not is_native(head, len(OWN), OWN)


@pytest.mark.parametrize("size", [0, 4, 20, 64, 100])
def test_a_file_that_is_cut_short_is_not_native(size: int) -> None:
    assert not is_native(OWN[: min(size, HEAD_BYTES)], size, OWN)
