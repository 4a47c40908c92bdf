"""Strict parsing of untrusted JSON: orjson's speed, with proof that it lost and bent nothing.

What the proof cannot decide, and the naming of every fault, is left to `exact_json`. Callers import
`parse_strict` from `canonical`.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import orjson

from mfm_ops.machine.json_rules import MAX_DEPTH, Json, holds_only_json

__all__ = ["parse_strict"]

_NEGATIVE_ZERO: Final = re.compile(rb"-0(?:[,\]} \t\r\n]|\Z)")


def parse_strict(
    data: bytes | bytearray | memoryview,
    *,
    max_depth: int = MAX_DEPTH,
    numbers: Literal["reject", "string"] = "reject",
) -> Json:
    """The one JSON value in `data`, exactly as written (the contract, section 3; RFC 8259).

    A number with a fraction or an exponent is a float even where it is integral, and so is `-0`,
    whose sign no integer keeps. With `numbers="string"` floats and integers beyond ±(2^53-1)
    become strings of their own text instead of being refused. `max_depth` counts containers
    inside each other and is at most `MAX_DEPTH`, beyond which nothing could be encoded again.

    Raises:
        CanonicalError: `json_bom`, `json_not_utf8`, `json_syntax` (empty input and trailing bytes
            too), `json_not_finite`, `json_float`, `json_integer_range`, `json_lone_surrogate`,
            `json_duplicate_key` or `json_too_deep`, with pointer and byte offset.
        ValueError: `max_depth` is out of range.

    >>> parse_strict(b'{"a": [1, true]}')
    {'a': [1, True]}
    >>> parse_strict(b'[1.10, 1e400, 7]', numbers="string")
    ['1.10', '1e400', 7]
    >>> parse_strict(b'{"a": 1, "a": 1}')
    Traceback (most recent call last):
    mfm_ops.machine.json_rules.CanonicalError: an object has the same key twice (at '/a', byte 9)
    """
    if not 0 <= max_depth <= MAX_DEPTH:
        raise ValueError(f"max_depth is not within 0 and {MAX_DEPTH}")
    raw = bytes(memoryview(data))
    try:
        value: Json = orjson.loads(raw)
        echo = orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass
    else:
        if (raw == echo or _kept_everything(raw, echo)) and holds_only_json(value, max_depth):
            return value
    # Loaded only now: well-formed input, nearly all there is, never needs it.
    from mfm_ops.machine.exact_json import parse_exactly

    return parse_exactly(raw, max_depth=max_depth, numbers=numbers)


def _kept_everything(raw: bytes, echo: bytes) -> bool:
    """Whether nothing but spelling was lost on the way from `raw` to `echo`; a False may be wrong.

    A member lost to a duplicate key takes at least its own colon along, and none can appear in
    exchange unless a string spelt one as an escape. The sign of `-0` leaves no other trace.
    """
    # Single bytes are found many times faster than sequences, and most input holds neither.
    return (
        raw.count(b":") == echo.count(b":")
        and (b"\\" not in raw or b"\\u003" not in raw)
        and (b"-" not in raw or _NEGATIVE_ZERO.search(raw) is None)
    )
