"""`mfm_ops.runtime.verdict_diff`: what differs, place by place, in few and short lines."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm_ops.machine.canonical import Json
from mfm_ops.runtime.verdict_diff import MAX_PLACES, MAX_TEXT, brief, difference

scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8)
values: st.SearchStrategy[Json] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("recorded", "replayed", "lines"),
    [
        ({"a": 1}, {"a": 2}, ("- /a: 1", "+ /a: 2")),
        ({"a": 1}, {}, ("- /a: 1",)),
        ({}, {"a": [1]}, ("+ /a: [1]",)),
        ([1, 2], [1, 3], ("- /1: 2", "+ /1: 3")),
        ([1], [1, 2], ("+ /1: 2",)),
        ({"a": {"b": [True]}}, {"a": {"b": [1]}}, ("- /a/b/0: true", "+ /a/b/0: 1")),
        ({"a/b": 1}, {"a/b": 2}, ("- /a~1b: 1", "+ /a~1b: 2")),
        (1, 2, ("- (the whole value): 1", "+ (the whole value): 2")),
        ({"a": {}}, {"a": []}, ("- /a: {}", "+ /a: []")),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, ("- /a: 1", "+ /a: 2", "- /b: 1", "+ /b: 2")),
        ("\n", "\t", ('- (the whole value): "\\n"', '+ (the whole value): "\\t"')),
    ],
)
def test_a_difference_names_the_place_and_both_values(
    recorded: Json, replayed: Json, lines: tuple[str, ...]
) -> None:
    assert difference(recorded, replayed) == lines


def test_the_same_elements_in_another_order_are_said_to_be() -> None:
    lines = difference({"names": ["a", "b"]}, {"names": ["b", "a"]})
    assert lines == (
        '- /names: ["a","b"]',
        '+ /names: ["b","a"]',
        "  /names: the same 2 elements in another order",
    )


def test_of_a_long_text_the_part_around_the_first_difference_is_shown() -> None:
    text = "".join(f"line {number:04}. " for number in range(1000))
    at = text.index("line 0700")
    old, new = difference(text, text[:at] + "LINE" + text[at + 4 :])
    assert "line 0700" in old
    assert "LINE 0700" in new
    assert f"(from character {at - 24})" in new
    assert max(len(old), len(new)) < 2 * MAX_TEXT


def test_only_the_first_places_are_shown() -> None:
    lines = difference(list(range(100)), list(range(1, 101)))
    assert len(lines) == 2 * MAX_PLACES + 1
    assert lines[-1] == "  … and more"


def test_a_value_is_cut_where_it_is_long() -> None:
    assert len(brief({"a": "x" * 1000})) == MAX_TEXT


@settings(max_examples=200)
@given(values)
def test_equal_values_have_no_difference(value: Json) -> None:
    assert difference(value, copy.deepcopy(value)) == ()


@settings(max_examples=200)
@given(values, values)
def test_lines_are_few_and_short_and_exist_where_values_differ(one: Json, other: Json) -> None:
    lines = difference(one, other)
    assert bool(lines) == (repr_of(one) != repr_of(other))
    assert len(lines) <= 3 * MAX_PLACES + 1
    assert all(len(line) < 3 * MAX_TEXT for line in lines)


def repr_of(value: Json) -> object:
    """Equal for equal JSON alone: `True` is not 1, and members have no order."""
    if isinstance(value, dict):
        return {key: repr_of(member) for key, member in value.items()}
    if isinstance(value, list):
        return [repr_of(item) for item in value]
    return repr(value)
