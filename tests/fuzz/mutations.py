"""Hostile variations of good input: of bytes, of JSON values, of texts; and how many to try.

The short form runs in the suite, the long one by `make fuzz`.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

__all__ = ["JSON", "STRANGE_TEXTS", "broken_bytes", "examples", "outcome", "varied"]

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

_LONG_FACTOR = 50


def examples(count: int) -> settings:
    """`count` examples in the suite, many times as many in the long form."""
    long = os.environ.get("HYPOTHESIS_PROFILE") == "long"
    return settings(
        max_examples=count * (_LONG_FACTOR if long else 1),
        deadline=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.function_scoped_fixture,
        ],
    )


def outcome(action: Callable[[], T], refusal: type[E]) -> T | E:
    """What `action` returns, or the refusal that it raises; anything else is a failed test."""
    try:
        return action()
    except refusal as error:
        return error


STRANGE_TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            *("", " ", "\0", "a\0b", "\n", "a\n", "\ud800", "\u2028", "é", "é", "😀" * 40),
            *("../..", "/", "//", "~", "$HOME", "${HOME}", "%s", "{}", "{0}", "-", "--", "-1"),
            *("a" * 64, "A" * 64, "a" * 5000, "a.b.c", "a.b", "a..b", ".a", "a.", "1.5", "1e3"),
            *("0", "00", "-0", "1" * 40, "null", "true", "NaN", "Infinity", "١٢", "0x10"),
            *(
                "github:a/b#c",
                "path:/etc#x",
                ".#x",
                "#",
                "git+file:///x?rev=1#y",
                "a#b#c",
                "%2e%2e",
            ),
            *("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6BA7B810-9DAD-11D1-80B4-00C04FD430C8"),
        ]
    ),
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    STRANGE_TEXTS,
)
JSON = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(STRANGE_TEXTS, inner, max_size=4)
    ),
    max_leaves=10,
)


@st.composite
def varied(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value that is `value` but for up to three changes anywhere in it."""
    for _ in range(draw(st.integers(1, 3))):
        value = _changed(draw, value)
    return value


def _changed(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        way = draw(st.integers(0, 5))
        rest = {name: member for name, member in value.items() if name != key}
        if way == 0:
            return rest
        if way == 1:
            return {**rest, draw(STRANGE_TEXTS): value[key]}
        if way == 2:
            return {**value, draw(STRANGE_TEXTS): draw(JSON)}
        return {**value, key: _changed(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(value) - 1))
        way = draw(st.integers(0, 4))
        if way == 0:
            return [*value[:at], *value[at + 1 :]]
        if way == 1:
            return [*value, value[at]]
        return [*value[:at], _changed(draw, value[at]), *value[at + 1 :]]
    return draw(JSON)


@st.composite
def broken_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with a few bytes flipped, cut, doubled or put in."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 12))
        way = draw(st.integers(0, 4))
        if way == 0:
            data = data[:at] + draw(st.binary(max_size=8)) + data[at + size :]
        elif way == 1:
            data = data[:at] + data[at : at + size] * 2 + data[at + size :]
        elif way == 2:
            data = data[:at]
        elif way == 3:
            piece = draw(st.sampled_from([b"\0", b'"', b"{", b"[" * 200, b"\\u", b"1.0", b"-0"]))
            data = data[:at] + piece + data[at:]
        elif at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
    return data
