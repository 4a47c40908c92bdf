"""Canonical encoding and content ids, held to `rfc8785` byte for byte."""

from __future__ import annotations

import enum
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm_ops.machine import json_rules
from mfm_ops.machine.canonical import (
    MAX_DEPTH,
    CanonicalError,
    artifact_id_for_bytes,
    artifact_id_for_json,
    canonical_json_bytes,
    is_canonical,
    json_pointer,
    parse_canonical,
    parse_strict,
)
from mfm_ops.machine.ids import ArtifactId, ContextKey

INTEGER_BOUND = 2**53 - 1

# Both sides of the places where UTF-16 and code point order part, and all that JSON escapes.
CHARACTERS = st.one_of(
    st.sampled_from(
        'ab"\\/\x00\x08\t\n\x1f\x7f\x80é\u2028\ud7ff\ue000\ufe0f\uffff\U00010000😀🀀\U0010ffff'
    ),
    st.characters(exclude_categories=["Cs"]),
)
TEXTS = st.text(CHARACTERS, max_size=8)
INTEGERS = st.one_of(
    st.integers(-INTEGER_BOUND, INTEGER_BOUND),
    st.sampled_from([INTEGER_BOUND, -INTEGER_BOUND, 0, 2**32, -(2**31)]),
)
SCALARS = st.one_of(st.none(), st.booleans(), INTEGERS, TEXTS)


def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(children, max_size=5), st.dictionaries(TEXTS, children, max_size=6))


DOCUMENTS = st.recursive(SCALARS, containers, max_leaves=30)


class Label(str):
    """A text with an instance dictionary, unlike the ids, which have no slots."""


class Mode(enum.StrEnum):
    LIVE = "Live"


class Level(enum.IntEnum):
    HIGH = 3


class Renamed(enum.StrEnum):
    """Its member is the text `base`, though its `value` says otherwise."""

    MEMBER = "base"

    def __init__(self, text: str) -> None:
        self._value_ = "elsewhere"


class Count(int):
    pass


class ByIdentity(str):
    """Equal to nothing but itself, so that a dict can hold one text twice."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def nested(depth: int, innermost: Any = 1) -> Any:
    value = innermost
    for _ in range(depth):
        value = [value]
    return value


def refusal(value: object) -> CanonicalError:
    with pytest.raises(CanonicalError) as caught:
        canonical_json_bytes(value)
    return caught.value


@settings(max_examples=200, deadline=None)
@given(DOCUMENTS)
def test_bytes_are_those_of_rfc8785(value: Any) -> None:
    assert canonical_json_bytes(value) == rfc8785.dumps(value)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(TEXTS, SCALARS, min_size=2, max_size=20))
def test_keys_are_ordered_as_rfc8785_orders_them(value: Any) -> None:
    assert canonical_json_bytes([value]) == rfc8785.dumps([value])


@settings(max_examples=200, deadline=None)
@given(DOCUMENTS)
def test_canonical_bytes_parse_back_to_the_value(value: Any) -> None:
    encoded = canonical_json_bytes(value)
    assert parse_canonical(encoded) == value
    assert parse_strict(encoded) == value
    assert is_canonical(encoded)


@settings(max_examples=100, deadline=None)
@given(DOCUMENTS, st.sampled_from([1.5, 0.0, -0.0, 1e300, float("nan"), (), uuid.UUID(int=0)]))
def test_a_misfit_anywhere_is_refused(value: Any, misfit: Any) -> None:
    for planted in ([value, misfit], {"a": value, "b": [misfit]}, [[misfit], value], misfit):
        refusal(planted)


def test_rfc8785_sorting_example() -> None:
    # RFC 8785 §3.2.3.
    source = (
        '{"\\u20ac": "Euro Sign", "\\r": "Carriage Return", "\\ufb33": "Hebrew Letter Dalet '
        'With Dagesh", "1": "One", "\\ud83d\\ude00": "Emoji: Grinning Face", "\\u0080": "Control", '
        '"\\u00f6": "Latin Small Letter O With Diaeresis"}'
    )
    encoded = canonical_json_bytes(parse_strict(source.encode()))
    assert list(json.loads(encoded).values()) == [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ]


def test_rfc8785_string_and_literal_example() -> None:
    # RFC 8785 §3.2.2, without its member of floats.
    source = (
        rb'{"string": "\u20ac$\u000F\u000aA' + rb"'" + rb'\u0042\u0022\u005c\\\"\/",'
        rb'"literals": [null, true, false]}'
    )
    assert canonical_json_bytes(parse_strict(source)) == (
        '{"literals":[null,true,false],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'.encode()
    )


def test_rfc8785_example_with_floats_is_refused() -> None:
    numbers = [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001]
    error = refusal({"numbers": numbers})
    assert (error.code, error.pointer) == ("json_float", "/numbers/0")


WEIRD = (
    '{"\\u20ac": "Euro Sign", "\\r": "Carriage Return", "\\u000a": "Newline", "1": "One", '
    '"\\u0080": "Control\\u007f", "\\ud83d\\ude02": "Smiley", "\\u00f6": "Latin", '
    '"\\ufb33": "Hebrew", "</script>": "Browser Challenge"}'
)
WEIRD_CANONICAL = (
    '{"\\n":"Newline","\\r":"Carriage Return","1":"One","</script>":"Browser Challenge",'
    '"\x80":"Control\x7f","\xf6":"Latin","\u20ac":"Euro Sign","\U0001f602":"Smiley",'
    '"\ufb33":"Hebrew"}'
)
FRENCH = '{"peach": "a", "péché": "b", "pêche": "c", "sin": "d"}'
STRUCTURES = (
    '{"1": {"f": {"f": "hi", "F": 5}, "\\n": 56}, "10": {}, "": "empty", "a": {}, '
    '"111": [{"e": "yes", "E": "no"}], "A": {}}'
)
STRUCTURES_CANONICAL = (
    '{"":"empty","1":{"\\n":56,"f":{"F":5,"f":"hi"}},"10":{},'
    '"111":[{"E":"no","e":"yes"}],"A":{},"a":{}}'
)


# Test data of the RFC's reference implementation, where it holds no floats.
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (WEIRD, WEIRD_CANONICAL),
        (FRENCH, FRENCH.replace(" ", "")),
        (STRUCTURES, STRUCTURES_CANONICAL),
        ('{"Unnormalized Unicode": "A\\u030a"}', '{"Unnormalized Unicode":"A\u030a"}'),
        ('[56, {"d": true, "10": null, "1": []}]', '[56,{"1":[],"10":null,"d":true}]'),
    ],
    ids=["weird", "french", "structures", "unicode", "arrays"],
)
def test_published_examples(source: str, expected: str) -> None:
    assert canonical_json_bytes(parse_strict(source.encode())) == expected.encode()


@pytest.mark.parametrize(
    ("value", "code", "pointer"),
    [
        (1.0, "json_float", ""),
        ({"a": [1, -0.0]}, "json_float", "/a/1"),
        ([[1e16]], "json_float", "/0/0"),
        ({"a": float("nan")}, "json_not_finite", "/a"),
        ([float("inf")], "json_not_finite", "/0"),
        ([None, float("-inf")], "json_not_finite", "/1"),
        ([INTEGER_BOUND + 1], "json_integer_range", "/0"),
        ({"n": -INTEGER_BOUND - 1}, "json_integer_range", "/n"),
        ([10**5000], "json_integer_range", "/0"),
        ([Count(2**60)], "json_integer_range", "/0"),
        ({"a/b~": "\ud800"}, "json_lone_surrogate", "/a~1b~0"),
        ({"a": {"\udfff": 1}}, "json_lone_surrogate", "/a"),
        ({"a": {1: 2}}, "json_key_type", "/a"),
        ([{None: 2}], "json_key_type", "/0"),
        ({ByIdentity("k"): 1, ByIdentity("k"): 2}, "json_duplicate_key", "/k"),
        ((1, 2), "json_unsupported_type", ""),
        ({"a": [()]}, "json_unsupported_type", "/a/0"),
        ([b"bytes"], "json_unsupported_type", "/0"),
        ({"a": {1, 2}}, "json_unsupported_type", "/a"),
        ([uuid.UUID(int=0), {}], "json_unsupported_type", "/0"),
        ([orjson.Fragment(b"1.5")], "json_unsupported_type", "/0"),
        ([Decimal(1)], "json_unsupported_type", "/0"),
        ([1.5, (), "\ud800"], "json_float", "/0"),
        ({"": {"": 0.5}}, "json_float", "//"),
    ],
)
def test_each_misfit_has_its_code_and_pointer(value: object, code: str, pointer: str) -> None:
    error = refusal(value)
    assert (error.code, error.pointer, error.offset) == (code, pointer, None)


def test_depth_is_bounded() -> None:
    deepest = nested(MAX_DEPTH)
    assert canonical_json_bytes(deepest) == rfc8785.dumps(deepest)
    for depth in (MAX_DEPTH + 1, 200, 300, 100_000):
        error = refusal(nested(depth))
        assert (error.code, error.pointer) == ("json_too_deep", "/0" * MAX_DEPTH)


def test_depth_is_bounded_on_the_exact_path_too() -> None:
    labels = nested(MAX_DEPTH, {})
    assert refusal(labels).code == "json_too_deep"
    assert canonical_json_bytes(nested(MAX_DEPTH, Mode.LIVE))
    assert refusal(nested(MAX_DEPTH + 1, Mode.LIVE)).code == "json_too_deep"


def test_cycles_are_refused() -> None:
    ring: list[object] = []
    ring.extend([ring, ring])
    assert refusal(ring).code == "json_too_deep"
    table: dict[str, object] = {}
    table["a"] = [table, table]
    assert refusal(table).code == "json_too_deep"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ArtifactId("0" * 64), b'"' + b"0" * 64 + b'"'),
        ([{"mode": Mode.LIVE}], b'[{"mode":"Live"}]'),
        ([Level.HIGH, Count(7)], b"[3,7]"),
        ({Mode.LIVE: Label("x")}, b'{"Live":"x"}'),
        ({ContextKey("b"): 1, "a": [Label("y"), {}]}, b'{"a":["y",{}],"b":1}'),
        ([Renamed.MEMBER], b'["base"]'),
        ({Renamed.MEMBER: 1}, b'{"base":1}'),
    ],
)
def test_subclasses_count_as_their_base_value(value: Any, expected: bytes) -> None:
    assert canonical_json_bytes(value) == expected == rfc8785.dumps(value)


class Reversed(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        return reversed(self)


class Empty(dict[str, Any]):
    def __iter__(self) -> Iterator[str]:
        return iter(())

    def keys(self) -> Any:
        return ()


def test_a_subclass_counts_as_what_it_holds_not_as_what_it_shows() -> None:
    value = {"list": Reversed([1, 2]), "dict": Empty(a=1)}
    assert canonical_json_bytes(value) == b'{"dict":{"a":1},"list":[1,2]}'


def test_long_documents_of_every_shape_match_rfc8785() -> None:
    emoji = "\u2764\ufe0f\U0001f600\uff0c" * 50
    shapes: list[Any] = [
        {f"key{i * 7919 % 5000}": [i, None, emoji] for i in range(2000)},
        [[i, True, {"a": "b"}] for i in range(3000)],
        {chr(0xE000 + i): chr(0x1F600 + i % 60) for i in range(500)}
        | {chr(0x10000 + i): i for i in range(500)},
        list(range(10_000)),
    ]
    for shape in shapes:
        assert canonical_json_bytes(shape) == rfc8785.dumps(shape)


def test_ids_are_sha256_of_the_canonical_bytes() -> None:
    assert artifact_id_for_json({"b": 1, "a": "é"}) == artifact_id_for_bytes(
        '{"a":"é","b":1}'.encode()
    )
    assert artifact_id_for_bytes(memoryview(b"abc")) == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert isinstance(artifact_id_for_json([]), ArtifactId)


def test_ids_refuse_what_has_no_canonical_form() -> None:
    with pytest.raises(CanonicalError):
        artifact_id_for_json({"a": 1.0})


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b'{"a": 1}', 5),
        (b'{"b":1,"a":2}', 2),
        (b'"\\u0041"', 1),
        (b'"\\/"', 1),
        (b"[1]\n", 3),
        (b'"\\u000A"', 2),
        ('{"\ue000":1,"😀":2}'.encode(), 2),
    ],
)
def test_other_spellings_are_not_canonical(data: bytes, offset: int) -> None:
    assert not is_canonical(data)
    with pytest.raises(CanonicalError) as caught:
        parse_canonical(data)
    assert (caught.value.code, caught.value.offset) == ("json_not_canonical", offset)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "json_syntax"),
        (b"-0", "json_float"),
        (b"1.5", "json_float"),
        (b"9007199254740992", "json_integer_range"),
        (b'{"a":1,"a":1}', "json_duplicate_key"),
        (b"[" * 129 + b"]" * 129, "json_too_deep"),
        (b'"\xff"', "json_not_utf8"),
    ],
)
def test_stored_bytes_that_are_no_json_keep_their_code(data: bytes, code: str) -> None:
    with pytest.raises(CanonicalError) as caught:
        parse_canonical(data)
    assert caught.value.code == code
    assert not is_canonical(data)


def test_stored_bytes_come_as_any_buffer() -> None:
    for data in (b"[1]", bytearray(b"[1]"), memoryview(b"[1]")):
        assert parse_canonical(data) == [1]


def test_pointers_escape_as_rfc6901_says() -> None:
    # RFC 6901 §5, members of its example.
    assert [json_pointer([part]) for part in ("", "a/b", "c%d", "m~n", "~1")] == [
        "/",
        "/a~1b",
        "/c%d",
        "/m~0n",
        "/~01",
    ]
    assert json_pointer(["foo", 0]) == "/foo/0"


def test_errors_shorten_long_keys_and_escape_control_characters() -> None:
    error = refusal({"k" * 10_000: {"\x1b[2J": 1.5}})
    assert error.pointer == "/" + "k" * 63 + "…/\x1b[2J"
    assert "\x1b" not in str(error)


def test_errors_never_carry_the_value() -> None:
    for value in ([b"hunter2"], ["hunter2\ud800"], [Decimal("31337.5")], [31337.5]):
        error = refusal(value)
        assert "hunter2" not in f"{error} {error!r}"
        assert "31337" not in f"{error} {error!r}"


def test_every_code_has_a_message() -> None:
    for code in json_rules._MESSAGES:
        assert str(CanonicalError(code)).endswith("(at the root)")


def test_import_loads_no_pydantic_and_no_reference_encoder() -> None:
    program = (
        "import sys, mfm_ops.machine.canonical as c; c.canonical_json_bytes({'a': 1});"
        "c.parse_strict(b'[1]'); print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"pydantic", "rfc8785", "mfm_ops.machine.exact_json"} & set(loaded)
