"""Canonical JSON (RFC 8785, stricter) and the content ids made from it: the one door to both.

Parsing of untrusted bytes lives in `strict_json`, the rules that both share in `json_rules`; their
public names are offered here. What the ids name is stored by the stores.
"""

from __future__ import annotations

import gc
import hashlib
import math
from typing import TYPE_CHECKING, Final, Protocol

import orjson

from mfm_ops.machine.json_rules import (
    MAX_DEPTH,
    MAX_INTEGER,
    CanonicalError,
    Json,
    fault,
    holds_only_json,
    json_pointer,
)
from mfm_ops.machine.strict_json import parse_strict

if TYPE_CHECKING:
    from mfm_ops.machine.ids import ArtifactId

__all__ = [
    "CanonicalError",
    "CanonicalJsonPolicy",
    "Json",
    "MAX_DEPTH",
    "MAX_INTEGER",
    "artifact_id_for_bytes",
    "artifact_id_for_json",
    "canonical_json_bytes",
    "is_canonical",
    "json_pointer",
    "parse_canonical",
    "parse_strict",
]

_FAST: Final = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER

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

    >>> canonical_json_bytes({"b": [True, None], "a": 1})
    b'{"a":1,"b":[true,null]}'
    >>> canonical_json_bytes({"price": 1.5})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    mfm_ops.machine.json_rules.CanonicalError: a number is not an integer; ... (at '/price')
    """
    try:
        encoded = orjson.dumps(value, option=_FAST)
    except orjson.JSONEncodeError:
        return _encode_exactly(value)
    if not holds_only_json(value, MAX_DEPTH):
        return _encode_exactly(value)
    if _may_need_utf16_order(encoded) and _may_need_utf16_order(_all_keys(value)):
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
    # The ids bring pydantic along, which those who only encode or parse need not load.
    from mfm_ops.machine.ids import ArtifactId

    # The pattern needs no check: this is what hexdigest gives.
    return str.__new__(ArtifactId, hashlib.sha256(data).hexdigest())


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
    raw = bytes(memoryview(data))
    try:
        value: Json = orjson.loads(raw)
        # Equal bytes leave no room for a lost duplicate, a float or a rounded integer.
        if canonical_json_bytes(value) == raw:
            return value
    except (orjson.JSONDecodeError, CanonicalError):
        pass
    value = parse_strict(raw)
    canonical = canonical_json_bytes(value)
    if canonical == raw:
        return value
    raise CanonicalError("json_not_canonical", offset=_first_difference(raw, canonical))


def _first_difference(one: bytes, other: bytes) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _may_need_utf16_order(encoded: bytes) -> bool:
    return (
        not encoded.isascii()
        and any(lead in encoded for lead in _HIGH_BMP_LEADS)
        and any(lead in encoded for lead in _ASTRAL_LEADS)
    )


def _all_keys(value: object) -> bytes:
    """The keys of every object in `value`, which holds only JSON."""
    keys: list[str] = []
    level: list[object] = [value]
    while level:
        containers = [item for item in level if type(item) is dict or type(item) is list]
        for item in containers:
            if type(item) is dict:
                keys.extend(item)
        level = gc.get_referents(*containers)
    return "".join(keys).encode()


def _encode_exactly(value: object) -> bytes:
    return orjson.dumps(_plain(value, []), option=orjson.OPT_STRICT_INTEGER)


def _plain(value: object, path: list[str | int]) -> Json:
    """`value` made of exact base types, its keys in UTF-16 order; raises at the first fault."""
    if isinstance(value, str):
        return _text(value, path)
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        number = int.__int__(value)
        if abs(number) > MAX_INTEGER:
            raise fault("json_integer_range", path)
        return number
    if isinstance(value, list):
        return _plain_array(list.copy(value), path)
    if isinstance(value, dict):
        return _plain_object(dict(dict.items(value)), path)
    if isinstance(value, float):
        raise fault("json_float" if math.isfinite(value) else "json_not_finite", path)
    raise fault("json_unsupported_type", path)


def _plain_array(items: list[object], path: list[str | int]) -> list[Json]:
    _check_depth(path)
    plain: list[Json] = []
    for index, item in enumerate(items):
        path.append(index)
        plain.append(_plain(item, path))
        path.pop()
    return plain


def _plain_object(items: dict[object, object], path: list[str | int]) -> dict[str, Json]:
    _check_depth(path)
    members: dict[str, Json] = {}
    for name, member in items.items():
        if not isinstance(name, str):
            raise fault("json_key_type", path)
        key = _text(name, path)
        path.append(key)
        if key in members:
            raise fault("json_duplicate_key", path)
        members[key] = _plain(member, path)
        path.pop()
    order = None if "".join(members).isascii() else _utf16_units
    return {key: members[key] for key in sorted(members, key=order)}


def _text(value: str, path: list[str | int]) -> str:
    text = str.__str__(value)
    if text.isascii():
        return text
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
