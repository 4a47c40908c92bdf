"""`mfm_ops.runtime.context`: snapshots joined from fragments, and writes staged over them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm_ops.machine.canonical import (
    MAX_DEPTH,
    CanonicalError,
    Json,
    artifact_id_for_bytes,
    canonical_json_bytes,
    parse_canonical,
)
from mfm_ops.machine.errors import ContextFailure, StorageFailure
from mfm_ops.machine.ids import ContextKey
from mfm_ops.runtime.context import (
    JsonContext,
    Snapshot,
    StagedContext,
    stored_delta,
    stored_values,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
CONTEXTS = st.dictionaries(TEXT, VALUES, max_size=6)
K = ContextKey("k")


def nested(depth: int) -> Json:
    value: Json = 0
    for _ in range(depth):
        value = [value]
    return value


@given(CONTEXTS)
def test_a_snapshots_bytes_are_the_canonical_json_of_its_values(values: dict[str, Json]) -> None:
    snapshot = Snapshot.of_values(values)
    assert snapshot.canonical_bytes() == canonical_json_bytes(values)
    assert snapshot.artifact_id == artifact_id_for_bytes(canonical_json_bytes(values))


@given(CONTEXTS)
def test_a_snapshot_read_from_its_bytes_is_the_same(values: dict[str, Json]) -> None:
    data = canonical_json_bytes(values)
    again = Snapshot.of_bytes(data)
    assert again.values() == values
    assert again.canonical_bytes() == data


@given(CONTEXTS, CONTEXTS)
def test_a_delta_of_stored_values_is_that_of_their_snapshots(
    one: dict[str, Json], other: dict[str, Json]
) -> None:
    before, after = Snapshot.of_values(one), Snapshot.of_values({**one, **other})
    for start, end in ((before, after), (after, before)):
        values = stored_values(start.canonical_bytes()), stored_values(end.canonical_bytes())
        assert stored_delta(*values) == start.delta_to(end)


def test_a_number_is_no_truth_value_in_a_delta() -> None:
    assert stored_delta({"a": 1, "b": [0]}, {"a": True, "b": [False]}) == {
        "a": b"true",
        "b": b"[false]",
    }


def test_keys_stand_in_utf16_order() -> None:
    snapshot = Snapshot.of_values({"\ufffd": 1, "\U0001f600": 2, "a": 3})
    assert snapshot.canonical_bytes() == '{"a":3,"\U0001f600":2,"\ufffd":1}'.encode()


@given(CONTEXTS, CONTEXTS)
def test_a_delta_leads_from_one_snapshot_to_the_other(
    one: dict[str, Json], other: dict[str, Json]
) -> None:
    before, after = Snapshot.of_values(one), Snapshot.of_values(other)
    assert before.apply(before.delta_to(after)).values() == after.values()


@given(CONTEXTS, st.lists(st.tuples(TEXT, st.none() | st.tuples(VALUES)), max_size=8))
def test_staged_writes_and_deletes_act_like_those_of_a_dict(
    base: dict[str, Json], steps: list[tuple[str, tuple[Json] | None]]
) -> None:
    context = StagedContext(Snapshot.of_values(base))
    model = dict(base)
    for key, write in steps:
        if write is None:
            context.delete(ContextKey(key))
            model.pop(key, None)
        else:
            context.write(ContextKey(key), write[0])
            model[key] = write[0]
        assert context.read(ContextKey(key)) == model.get(key)
    assert context.dump() == model
    assert Snapshot.of_values(base).apply(context.delta()).values() == model


def test_a_write_of_the_value_that_was_there_is_no_change() -> None:
    context = JsonContext({"k": {"a": 1}})
    context.write(K, {"a": 1})
    assert context.delta() == {}


def test_a_delete_of_a_key_that_was_not_there_is_no_change() -> None:
    context = JsonContext()
    context.delete(K)
    assert context.delta() == {}


def test_an_empty_delta_gives_the_snapshot_itself() -> None:
    snapshot = Snapshot.of_values({"k": 1})
    assert snapshot.apply({}) is snapshot


def test_what_was_read_can_be_changed_without_changing_the_context() -> None:
    context = JsonContext({"k": [1]})
    value = context.read(K)
    assert isinstance(value, list)
    value.append(2)
    assert context.read(K) == [1]


def test_what_was_written_can_be_changed_without_changing_the_context() -> None:
    context = JsonContext()
    value: list[Json] = [1]
    context.write(K, value)
    value.append(2)
    assert context.read(K) == [1]


@pytest.mark.parametrize(
    ("value", "pointer", "reason"),
    [
        (1.5, "", "json_float"),
        ({"a": [0, 2**53]}, "/a/1", "json_integer_range"),
        ("\ud800", "", "json_lone_surrogate"),
        ((1,), "", "json_unsupported_type"),
    ],
)
def test_a_value_without_canonical_form_is_refused_with_its_place(
    value: Json, pointer: str, reason: str
) -> None:
    context = JsonContext()
    with pytest.raises(ContextFailure) as refused:
        context.write(K, value)
    assert refused.value.error.variant == "Serialization"
    assert refused.value.info.details == {"key": "k", "pointer": pointer, "reason": reason}
    assert context.dump() == {}


def test_a_key_without_canonical_form_is_refused_when_it_is_written() -> None:
    context = JsonContext()
    with pytest.raises(ContextFailure) as refused:
        context.write(ContextKey("\ud800"), 1)
    assert refused.value.info.code == "context_serialize_failed"
    assert context.delta() == {}


def test_initial_values_are_refused_like_written_ones() -> None:
    values: dict[str, Any] = {"k": 1.5}
    with pytest.raises(ContextFailure):
        JsonContext(values)


def test_whatever_depth_is_accepted_can_be_read_from_the_snapshot_again() -> None:
    context = JsonContext()
    context.write(K, nested(MAX_DEPTH - 1))
    snapshot = Snapshot.of_values({}).apply(context.delta())
    assert Snapshot.of_bytes(snapshot.canonical_bytes()).values() == context.dump()
    with pytest.raises(ContextFailure):
        context.write(K, nested(MAX_DEPTH))


@pytest.mark.parametrize("data", [b"[]", b"1", b"{", b'{"a":1.5}', b'{"a":1,"a":2}', b""])
def test_bytes_that_are_no_snapshot_are_corruption(data: bytes) -> None:
    with pytest.raises(StorageFailure) as refused:
        Snapshot.of_bytes(data)
    assert refused.value.error.variant == "Corruption"


def test_the_parser_and_a_snapshot_agree_on_what_the_values_are() -> None:
    data = b'{"a":{"b":[1,null,"x"]},"c":true}'
    assert Snapshot.of_bytes(data).values() == parse_canonical(data)


def test_a_typed_write_is_read_back_as_its_type() -> None:
    context = JsonContext()
    context.write_typed(K, {"a": (1, 2)})
    assert context.read_typed(K, dict[str, tuple[int, ...]]) == {"a": (1, 2)}


@pytest.mark.parametrize(
    ("value", "as_type"), [("5", int), (True, int), (1, bool), ("true", bool), ("1", float)]
)
def test_a_typed_read_takes_no_other_type_for_it(value: Json, as_type: type[Any]) -> None:
    context = JsonContext({K: value})
    with pytest.raises(ContextFailure) as refused:
        context.read_typed(K, as_type)
    assert refused.value.info.code == "context_deserialize_failed"
    assert refused.value.error.variant == "Serialization"


@pytest.mark.parametrize("value", [object(), [object()], range(3), b"\xff", 1.5])
def test_a_typed_write_of_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(ContextFailure) as refused:
        JsonContext().write_typed(K, value)
    assert refused.value.info.code == "context_serialize_failed"


def test_a_refusal_is_told_without_the_value() -> None:
    value: list[Any] = ["hidden", 1.5]
    with pytest.raises(ContextFailure) as refused:
        JsonContext().write(K, value)
    assert "hidden" not in f"{refused.value} {refused.value.info}"
    assert not isinstance(refused.value.__cause__, CanonicalError)
