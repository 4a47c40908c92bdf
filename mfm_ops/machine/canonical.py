"""Canonical JSON (RFC 8785, stricter) and the content ids made from it: the one door to both.

Parsing of untrusted bytes lives in `strict_json`, the rules that both share in `json_rules`; their
public names are offered here. What the ids name is stored by the stores.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from enum import Enum
from typing import Final, Protocol

import orjson

from mfm_ops.machine.ids import ArtifactId
from mfm_ops.machine.json_rules import (
    MAX_DEPTH,
    MAX_INTEGER,
    CanonicalError,
    Json,
    fault,
    json_pointer,
    types_within,
)
from mfm_ops.machine.strict_json import parse_strict

__all__ = [
    "MAX_DEPTH",
    "MAX_INTEGER",
    "CanonicalError",
    "CanonicalJsonPolicy",
    "Json",
    "artifact_id_for_bytes",
    "artifact_id_for_json",
    "canonical_json_bytes",
    "is_canonical",
    "json_pointer",
    "parse_canonical",
    "parse_strict",
]

_FAST: Final = (
    orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER | orjson.OPT_PASSTHROUGH_DATETIME
) | orjson.OPT_PASSTHROUGH_DATACLASS
_PLAIN: Final = frozenset({type(None), bool, int, str, list, dict})

# UTF-8 lead bytes of U+E000..U+FFFF, and of what lies beyond the basic plane. UTF-16 sorts the
# latter first (as surrogates), code points and UTF-8 sort them last; all else sorts alike.
_HIGH_BMP_LEADS: Final = (b"\xee", b"\xef")
_ASTRAL_LEADS: Final = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")


class CanonicalJsonPolicy(Protocol):
    """Marks a policy by which hashed structured data becomes canonical JSON.

    It asks for nothing; the policy in force is `canonical_json_bytes`
    (seed: canonical::CanonicalJsonPolicy).
    """


def canonical_json_bytes(value: object) -> bytes:
    """The canonical UTF-8 bytes of a JSON value (RFC 8785; the contract, section 3).

    Accepts None, bool, int within ±(2^53-1), str, list, and dict with str keys, nested up to
    `MAX_DEPTH`. Instances of their subclasses (ids, `StrEnum` members) count as their base value.

    Raises:
        CanonicalError: `json_float`, `json_not_finite`, `json_integer_range`,
            `json_lone_surrogate`, `json_key_type`, `json_duplicate_key` (two keys of one text),
            `json_unsupported_type` (tuples too) or `json_too_deep`.

    >>> canonical_json_bytes({"b": [True, None], "a": "é"})
    b'{"a":"\\xc3\\xa9","b":[true,null]}'
    >>> canonical_json_bytes({"price": 1.5})
    Traceback (most recent call last):
    mfm_ops.machine.json_rules.CanonicalError: a number is not an integer; write it as a string \
or as a scaled integer (at '/price')
    """
    try:
        encoded = orjson.dumps(value, option=_FAST)
    except orjson.JSONEncodeError:
        return _encode_exactly(value)
    if _may_need_utf16_order(encoded) or not _holds_only_json(value):
        return _encode_exactly(value)
    return encoded


def artifact_id_for_json(value: object) -> ArtifactId:
    """The id of structured data: SHA-256 of its canonical bytes (the contract, section 3).

    Raises:
        CanonicalError: `value` has no canonical form.

    >>> str(artifact_id_for_json({}))
    '44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a'
    """
    return artifact_id_for_bytes(canonical_json_bytes(value))


def artifact_id_for_bytes(data: bytes | bytearray | memoryview) -> ArtifactId:
    """The id of bytes as they are: SHA-256, 64 lowercase hex digits.

    >>> str(artifact_id_for_bytes(b""))
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
    """
    return ArtifactId(hashlib.sha256(data).hexdigest())


def is_canonical(data: bytes | bytearray | memoryview) -> bool:
    """Whether `data` is the canonical form of some JSON value.

    >>> is_canonical(b'{"a":1}'), is_canonical(b'{"a": 1}')
    (True, False)
    """
    try:
        parse_canonical(data)
    except CanonicalError:
        return False
    return True


def parse_canonical(data: bytes | bytearray | memoryview) -> Json:
    """The value whose canonical form is `data`; stored bytes are read through this.

    Raises:
        CanonicalError: `json_not_canonical`, with the offset where the canonical form differs;
            or what `parse_strict` refuses, by its code.

    >>> parse_canonical(b'[1,"a"]')
    [1, 'a']
    """
    raw = bytes(data)
    try:
        value: Json = orjson.loads(raw)
        # Equal bytes leave no room for a lost duplicate, a float or a rounded integer.
        if canonical_json_bytes(value) == raw:
            return value
    except ValueError:
        pass
    canonical = canonical_json_bytes(parse_strict(raw))
    pairs = enumerate(zip(raw, canonical, strict=False))
    shorter = min(len(raw), len(canonical))
    raise CanonicalError(
        "json_not_canonical", offset=next((at for at, (a, b) in pairs if a != b), shorter)
    )


def _may_need_utf16_order(encoded: bytes) -> bool:
    return (
        not encoded.isascii()
        and any(lead in encoded for lead in _HIGH_BMP_LEADS)
        and any(lead in encoded for lead in _ASTRAL_LEADS)
    )


def _holds_only_json(value: object) -> bool:
    """Whether orjson was not too kind: it writes floats, NaN, tuples, enums, UUIDs and more."""
    types = types_within(value, MAX_DEPTH)
    return types is not None and (types <= _PLAIN or all(map(_counts_as_base, types - _PLAIN)))


def _counts_as_base(kind: type) -> bool:
    # orjson writes an enum's `value`, which need not be the base value of the member.
    return issubclass(kind, (str, int)) and not issubclass(kind, Enum)


def _encode_exactly(value: object) -> bytes:
    return orjson.dumps(_plain(value, []), option=orjson.OPT_STRICT_INTEGER)


def _plain(value: object, path: list[str | int]) -> Json:
    """`value` made of exact base types, its keys in UTF-16 order; raises at the first fault."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        number = int.__int__(value)
        if abs(number) > MAX_INTEGER:
            raise fault("json_integer_range", path)
        return number
    if isinstance(value, float):
        raise fault("json_float" if math.isfinite(value) else "json_not_finite", path)
    if isinstance(value, list):
        _check_depth(path)
        return [_plain(item, [*path, index]) for index, item in enumerate(value)]
    if isinstance(value, dict):
        _check_depth(path)
        return _plain_object(dict(value).items(), path)
    raise fault("json_unsupported_type", path)


def _plain_object(items: Iterable[tuple[object, object]], path: list[str | int]) -> dict[str, Json]:
    members: dict[str, Json] = {}
    for name, member in items:
        if not isinstance(name, str):
            raise fault("json_key_type", path)
        key = _text(name, path)
        if key in members:
            raise fault("json_duplicate_key", [*path, key])
        members[key] = _plain(member, [*path, key])
    return {key: members[key] for key in sorted(members, key=_utf16_units)}


def _text(value: str, path: list[str | int]) -> str:
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise fault("json_lone_surrogate", path) from None
    return text


def _check_depth(path: list[str | int]) -> None:
    if len(path) >= MAX_DEPTH:
        raise fault("json_too_deep", path)


def _utf16_units(key: str) -> bytes:
    return key.encode("utf-16-be")
