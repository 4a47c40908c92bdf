"""Strict parsing: what is refused, by which code and where; the fast path against the exact one."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mfm_ops.machine.canonical import MAX_DEPTH, CanonicalError, parse_strict
from mfm_ops.machine.exact_json import parse_exactly

Numbers = Literal["reject", "string"]

FRAGMENTS = st.sampled_from(
    [
        *'{}[],:" \n',
        *('"a"', '"a":', '"b":1', '{"a":1,"a":2}', '"\\u003a"', '"\\u003A":', '"x:y"', '"é😀"'),
        *("0", "-0", "-0 ", "7", "1.0", "1e2", "-1.5E-3", "1e400", "01", "1.", "+1", ".5", "-"),
        *("9007199254740991", "9007199254740992", "-9007199254740992", "9" * 30),
        *("true", "false", "null", "nul", "NaN", "Infinity", "-Infinity", "nan"),
        *('"\\ud83d\\ude00"', '"\\ud800"', '"\\n\\\\\\""', '"\\x"', '"\\u00g0"', '"\x01"', "\x00"),
    ]
)
TEXTS = st.lists(FRAGMENTS, max_size=12).map("".join)
WELL_FORMED = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**55), 2**55),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=6),
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=4), st.dictionaries(st.text(max_size=3), children, max_size=4)
    ),
    max_leaves=20,
)


def outcome(parse: Any, data: bytes, numbers: Numbers) -> tuple[str, Any]:
    try:
        return "value", parse(data, max_depth=MAX_DEPTH, numbers=numbers)
    except CanonicalError as error:
        return "error", (error.code, error.pointer, error.offset)


def refusal(data: bytes, *, max_depth: int = MAX_DEPTH) -> CanonicalError:
    with pytest.raises(CanonicalError) as caught:
        parse_strict(data, max_depth=max_depth)
    return caught.value


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.sampled_from(["reject", "string"]))
@example('{"\\u003a":1,"a":1,"a":1}', "reject")
@example('{"a":":","a":1}', "reject")
def test_fast_and_exact_parser_agree(text: str, numbers: Numbers) -> None:
    data = text.encode()
    assert outcome(parse_strict, data, numbers) == outcome(parse_exactly, data, numbers)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=12), st.sampled_from([b"%b", b'"%b"', b'{"%b":1}', b"[%b]"]))
def test_fast_and_exact_parser_agree_on_raw_bytes(data: bytes, frame: bytes) -> None:
    framed = frame % data
    assert outcome(parse_strict, framed, "reject") == outcome(parse_exactly, framed, "reject")


@settings(max_examples=200, deadline=None)
@given(WELL_FORMED, st.booleans(), st.sampled_from([None, 1]))
def test_numbers_as_strings_keep_their_own_text(
    value: Any, ensure_ascii: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    def whole(token: str) -> int | str:
        return token if abs(int(token)) > 2**53 - 1 else int(token)

    expected = json.loads(text, parse_float=str, parse_int=whole)
    assert parse_strict(text.encode(), numbers="string") == expected


@pytest.mark.parametrize(
    ("data", "code", "pointer", "offset"),
    [
        (b"", "json_syntax", "", 0),
        (b"  ", "json_syntax", "", 2),
        (b"[1] x", "json_syntax", "", 4),
        (b"{} {}", "json_syntax", "", 3),
        (b"[1]\x00", "json_syntax", "", 3),
        (b"[1,]", "json_syntax", "/1", 3),
        (b'{"a":1,}', "json_syntax", "", 7),
        (b'{"a" 1}', "json_syntax", "/a", 5),
        (b"{a:1}", "json_syntax", "", 1),
        (b'{"a":[1,2', "json_syntax", "/a", 9),
        (b'["abc', "json_syntax", "/0", 5),
        (b'["a\\', "json_syntax", "/0", 4),
        (b'["a\nb"]', "json_syntax", "/0", 3),
        (b"[01]", "json_syntax", "", 2),
        (b"[1.]", "json_syntax", "", 2),
        (b"[+1]", "json_syntax", "/0", 1),
        (b"[.5]", "json_syntax", "/0", 1),
        (b"[-]", "json_syntax", "/0", 1),
        (b"[tru]", "json_syntax", "/0", 1),
        (b"['a']", "json_syntax", "/0", 1),
        (b"[1]//", "json_syntax", "", 3),
        ("[1,\u00a02]".encode(), "json_syntax", "/1", 3),
        (b'["\\x41"]', "json_syntax", "/0", 2),
        ('["é\\u12g4"]'.encode(), "json_syntax", "/0", 5),
        (b"NaN", "json_not_finite", "", 0),
        (b"[1,Infinity]", "json_not_finite", "/1", 3),
        (b'{"a":-Infinity}', "json_not_finite", "/a", 5),
        (b"1.0", "json_float", "", 0),
        (b'{"a":[1,1e2]}', "json_float", "/a/1", 8),
        (b"[1E400]", "json_float", "/0", 1),
        (b"[-0.0]", "json_float", "/0", 1),
        (b"-0", "json_float", "", 0),
        (b'{"a":-0}', "json_float", "/a", 5),
        (b"[-0\t]", "json_float", "/0", 1),
        (b"9007199254740992", "json_integer_range", "", 0),
        (b"[-9007199254740992]", "json_integer_range", "/0", 1),
        (b"[18446744073709551616]", "json_integer_range", "/0", 1),
        (b'["\\ud800"]', "json_lone_surrogate", "/0", 1),
        (b'["\\ude00\\ud83d"]', "json_lone_surrogate", "/0", 1),
        (b'{"a":{"\\udc00":1}}', "json_lone_surrogate", "/a", 6),
        (b'{"a":1,"b":2,"a":1}', "json_duplicate_key", "/a", 13),
        (b'[{"a":1,"\\u0061":1}]', "json_duplicate_key", "/0/a", 8),
        (b'{"\\u003a":1,"a":1,"a":1}', "json_duplicate_key", "/a", 18),
        (b'{"a":{"x":1},"a":{"\\u003A":1}}', "json_duplicate_key", "/a", 13),
        (b'{"a/b":{"":1,"":1}}', "json_duplicate_key", "/a~1b/", 13),
        (b"\xef\xbb\xbf{}", "json_bom", "", 0),
        (b"\xff\xfe[\x00]\x00", "json_not_utf8", "", 0),
        (b'["\xed\xa0\x80"]', "json_not_utf8", "/0", 2),
        (b'{"a":"x\xff"}', "json_not_utf8", "/a", 7),
        (b'{"\xc0\x80":1}', "json_not_utf8", "", 2),
        (b'["\xf4\x90\x80\x80', "json_not_utf8", "/0", 2),
        (b"[1,\x80]", "json_not_utf8", "/1", 3),
        (b'[1.5,{"a":1,"a":2}', "json_float", "/0", 1),
    ],
)
def test_each_fault_has_its_code_pointer_and_offset(
    data: bytes, code: str, pointer: str, offset: int
) -> None:
    error = refusal(data)
    assert (error.code, error.pointer, error.offset) == (code, pointer, offset)


@pytest.mark.parametrize(
    "data",
    [
        b'{"id":"2024-01-05T10:00:00Z","u":"a-0"}',
        b'{"a":"-0,","b":"x-0 "}',
        b'"\\\\u003a"',
        b'{"\\u003a":{"\\u003A":1}}',
        b'[{"a":1},{"a":1}]',
        b'"\\ud83d\\ude00"',
        b'"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\u001F"',
        b' \t\r\n[ 1 , { "a" : -7 } ]\n',
        b"[9007199254740991,-9007199254740991]",
        b'"\x7f"',
    ],
)
def test_well_formed_input_is_read_as_the_standard_library_reads_it(data: bytes) -> None:
    assert parse_strict(data) == json.loads(data)
    assert parse_exactly(data, max_depth=MAX_DEPTH, numbers="reject") == json.loads(data)


def test_numbers_can_become_strings_of_their_own_text() -> None:
    data = b'{"a":[1.10,1e400,-0,-0.0,9007199254740992,9007199254740991,"1.5",2E+1],"b":1}'
    assert parse_strict(data, numbers="string") == {
        "a": ["1.10", "1e400", "-0", "-0.0", "9007199254740992", 9007199254740991, "1.5", "2E+1"],
        "b": 1,
    }


def test_numbers_as_strings_still_refuse_what_is_no_number() -> None:
    for data in (b"NaN", b"[-Infinity]", b"[01]", b"[1.]", b'{"a":1.5,"a":1.5}'):
        with pytest.raises(CanonicalError):
            parse_strict(data, numbers="string")


def test_depth_is_bounded_at_the_limit_that_was_asked_for() -> None:
    for limit in (0, 1, 2, MAX_DEPTH):
        assert parse_strict(b"[" * limit + b"1" + b"]" * limit, max_depth=limit) is not None
        error = refusal(b"[" * (limit + 1) + b"]" * (limit + 1), max_depth=limit)
        assert (error.code, error.pointer) == ("json_too_deep", "/0" * limit)


def test_depth_counts_objects_too() -> None:
    error = refusal(b'{"a":' * 129 + b"1" + b"}" * 129)
    assert (error.code, error.pointer) == ("json_too_deep", "/a" * 128)


@pytest.mark.parametrize("max_depth", [-1, MAX_DEPTH + 1])
def test_a_depth_that_could_not_be_encoded_again_is_refused(max_depth: int) -> None:
    with pytest.raises(ValueError, match="max_depth"):
        parse_strict(b"1", max_depth=max_depth)


def test_any_buffer_is_accepted() -> None:
    assert parse_strict(bytearray(b"[1]")) == parse_strict(memoryview(b"x[1]")[1:]) == [1]


def test_text_is_not_bytes() -> None:
    with pytest.raises(TypeError):
        parse_strict("[1]")  # type: ignore[arg-type]


def test_errors_never_carry_the_value() -> None:
    for data in (b'["hunter2\\ud800"]', b'["hunter2', b"[hunter2]", b'["hunter2\xff"]', b"31337.5"):
        error = refusal(data)
        assert "hunter2" not in f"{error} {error!r}"
        assert "31337" not in f"{error} {error!r}"
        assert error.__cause__ is None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"[" * 2**20, "json_too_deep"),
        (b'{"a":' * 200_000, "json_too_deep"),
        (b'"' + b"\\" * 2**20, "json_syntax"),
        (b'"' + b'\\"' * 2**19, "json_syntax"),
        (b'"' * 2**20, "json_syntax"),
        (b" " * 2**20, "json_syntax"),
        (b"9" * 2**20, "json_integer_range"),
        (b"1." + b"9" * 2**20, "json_float"),
        (b"-" * 2**20, "json_syntax"),
        (b"[" + b"1," * 2**18, "json_syntax"),
        (b'"' + b"\\ud800" * 2**17 + b'"', "json_lone_surrogate"),
        (b'"' + b"x" * 2**20 + b"\xff", "json_not_utf8"),
        (
            b"{" + b",".join(b'"%d":1' % (i % 60_000) for i in range(60_001)) + b"}",
            "json_duplicate_key",
        ),
        (b"[" + b"{}," * 2**17 + b"1.5]", "json_float"),
    ],
)
def test_a_mebibyte_of_hostile_input_is_refused_in_one_pass(data: bytes, code: str) -> None:
    assert refusal(data).code == code


def test_a_mebibyte_of_escapes_is_read() -> None:
    assert parse_strict(b'"' + b"\\\\" * 2**19 + b'"') == "\\" * 2**19
    assert parse_strict(b'"' + b"\\u003a" * 2**17 + b'"') == ":" * 2**17
