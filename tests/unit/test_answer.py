"""`transports.answer`: output is parsed as it comes, and what counts is all of it."""

import pytest

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.errors import TransportFailure
from mfm_ops.machine.transport import TransportReply
from transports.answer import Answer

REMARKS: dict[str, Json] = {"program": "/p"}


def listened(*chunks: bytes) -> tuple[Answer, list[TransportReply]]:
    """An answer that has been given `chunks`, and what it foretold."""
    told: list[TransportReply] = []
    answer = Answer("reject", {"program_path": "/p"}, REMARKS, told.append)
    for chunk in chunks:
        answer.take(chunk)
    return answer, told


def test_a_whole_value_is_foretold_with_the_remarks_and_is_the_answer() -> None:
    answer, told = listened(b'{"a":', b" [1]}\n")
    assert told == [TransportReply({"a": [1]}, REMARKS)]
    assert answer.response(b'{"a": [1]}\n') is told[0].response


def test_what_comes_later_is_part_of_the_answer() -> None:
    answer, told = listened(b"1", b"2\n")
    assert [reply.response for reply in told] == [1, 12]
    assert answer.response(b"12\n") == 12
    assert answer.response(b"123\n") == 123


def test_what_follows_a_whole_value_can_spoil_it() -> None:
    answer, told = listened(b"1\n", b"oops")
    assert [reply.response for reply in told] == [1]
    with pytest.raises(TransportFailure) as failed:
        answer.response(b"1\noops")
    assert failed.value.info.code == "exec_stdout_invalid_json"


def test_output_in_many_pieces_is_not_parsed_for_each_of_them() -> None:
    pieces = [b"1", *[b"0"] * 10]
    answer, told = listened(*pieces)
    assert [reply.response for reply in told] == [1, 10, 100, 1000]
    assert answer.response(b"".join(pieces)) == 10**10


def test_long_output_is_parsed_once() -> None:
    text = b'"' + b"x" * (64 * 1024) + b'"'
    answer, told = listened(text[:10], text[10:], b"\n")
    assert told == []
    assert answer.response(text + b"\n") == text[1:-1].decode()
