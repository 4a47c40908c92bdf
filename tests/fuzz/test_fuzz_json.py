"""Bytes and values of any kind at the doors of the contract: refused by a code, or kept exactly."""

import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mfm_ops.machine import ids
from mfm_ops.machine.canonical import CanonicalError, canonical_json_bytes, parse_strict
from mfm_ops.machine.ids import Identifier, IdValidationError
from mfm_ops.machine.secrets import (
    find_secret,
    find_secret_in_canonical,
    redact_text,
    text_has_secret,
)
from tests.fuzz.mutations import JSON, STRANGE_TEXTS, broken_bytes, examples, outcome, varied
from tests.unit.test_wire_vectors import wire_type

_VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "wire_types.json").read_bytes())
_CASES = [(case["type"], case["json"]) for case in _VECTORS["round_trip"]]
_TEXTS = [json.dumps(value).encode() for _, value in _CASES]
_ID_TYPES = [
    getattr(ids, name) for name in ids.__all__ if name.endswith(("Id", "Key", "Path", "Code"))
]


@examples(200)
@given(st.one_of(st.binary(max_size=200), st.sampled_from(_TEXTS).flatmap(broken_bytes)))
def test_bytes_parse_to_what_they_say_or_are_refused_by_a_code(data: bytes) -> None:
    ways: tuple[Literal["reject", "string"], ...] = ("reject", "string")
    for numbers in ways:
        value = outcome(partial(parse_strict, data, numbers=numbers), CanonicalError)
        if isinstance(value, CanonicalError):
            assert value.code.startswith("json_")
            continue
        again = canonical_json_bytes(value)
        assert parse_strict(again) == value


@examples(200)
@given(JSON)
def test_a_value_is_encoded_or_refused_by_a_code(value: Any) -> None:
    data = outcome(lambda: canonical_json_bytes(value), CanonicalError)
    if isinstance(data, CanonicalError):
        assert data.code.startswith("json_")
    else:
        assert canonical_json_bytes(parse_strict(data)) == data


@examples(300)
@given(st.sampled_from(_CASES).flatmap(lambda case: st.tuples(st.just(case[0]), varied(case[1]))))
def test_a_varied_wire_value_keeps_its_bytes_or_is_refused(case: tuple[str, Any]) -> None:
    name, value = case
    try:
        data = canonical_json_bytes(value)
    except CanonicalError:
        return
    adapter = wire_type(name)
    try:
        loaded = adapter.validate_json(data)
    except (ValidationError, ValueError):
        return
    dumped = canonical_json_bytes(adapter.dump_python(loaded, mode="json"))
    assert adapter.validate_json(dumped) == loaded


@examples(200)
@given(st.sampled_from(_ID_TYPES), STRANGE_TEXTS)
def test_an_id_is_taken_as_it_is_or_refused(kind: type[Identifier], text: str) -> None:
    try:
        taken = kind(text)
    except IdValidationError:
        return
    assert kind(str(taken)) == taken


@examples(200)
@given(JSON)
def test_the_secret_scan_takes_any_value(value: Any) -> None:
    try:
        data = canonical_json_bytes(value)
    except CanonicalError:
        return
    assert find_secret_in_canonical(data) == find_secret(parse_strict(data))


_PIECES = st.sampled_from(
    [
        *("password", "=", ":", " ", "\n", '"', "'", "\\", "%", "%2", "%25", "\\u00", "\\u0022"),
        *("{", "}", "[", "]", "<password>", "</password>", "-p", "mysql ", "://", "@", "Bearer "),
        *("-----BEGIN PRIVATE KEY-----", "Cookie: ", "eyJhbGciOi", "ICAgICAgICAgICAgICAgICAgICAg"),
        *("616161616161616161616161616161", "abandon ", "\ud800", "\u3000", "sk_live_", "a.b.c"),
        *(":$", "?key=", ":5432:", "assword:", "net use ", "identified by '", "define('", "|"),
    ]
)


@examples(300)
@given(st.lists(_PIECES, max_size=30).map("".join))
def test_the_secret_scan_takes_any_text(text: str) -> None:
    rule = text_has_secret(text)
    assert (redact_text(text) == text) is (rule is None)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'"\\"'])
def test_depth_beyond_all_bounds_is_refused(opening: bytes) -> None:
    with pytest.raises(CanonicalError):
        parse_strict(opening * 100_000)
