"""What counts as a JSON value here, and how a refusal is told: code, JSON pointer, byte offset.

Shared by the encoder (`canonical`), the parser (`strict_json`) and its exact form (`exact_json`).
Others import these names from `canonical`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Final, TypeAlias

__all__ = [
    "CanonicalError",
    "Json",
    "MAX_DEPTH",
    "MAX_INTEGER",
    "fault",
    "holds_only_json",
    "json_pointer",
]

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json] | None"

MAX_DEPTH: Final = 128
"""How many containers may stand inside each other: `[]` is 1, a scalar 0."""

MAX_INTEGER: Final = 2**53 - 1
"""The largest magnitude that every IEEE 754 reader keeps exactly (RFC 8785 §3.2.2.3)."""

_MAX_SHOWN_KEY_CHARS: Final = 64
_JSON_TYPES: Final = frozenset({type(None), bool, int, str, list, dict})

_MESSAGES: Final[Mapping[str, str]] = {
    "json_bom": "the bytes begin with a byte order mark; write plain UTF-8",
    "json_duplicate_key": "an object has the same key twice",
    "json_float": "a number is not an integer; write it as a string or as a scaled integer",
    "json_integer_range": "an integer is outside ±(2^53-1); write it as a string",
    "json_key_type": "an object key is not a string",
    "json_lone_surrogate": "a string has half of a surrogate pair, which is not a character",
    "json_not_canonical": "the bytes are not the canonical form of the value that they hold",
    "json_not_finite": "NaN and Infinity are not JSON",
    "json_not_utf8": "the bytes are not valid UTF-8",
    "json_syntax": "the bytes are not exactly one JSON value",
    "json_too_deep": "containers are nested too deeply, or a container holds itself",
    "json_unsupported_type": "a value is not None, bool, int, str, list or dict",
}


class CanonicalError(ValueError):
    """A value or text that has no canonical JSON form (the contract, section 3).

    `code` is stable; `pointer` (RFC 6901, "" for the root) names the offending place, and where
    an object's key is itself unusable, that object; `offset` counts bytes of the parsed text.
    Never carries a value. Keys do appear in `pointer`, long ones shortened.

    >>> canonical_error = CanonicalError("json_float", "/price")
    >>> canonical_error.code, canonical_error.pointer, canonical_error.offset
    ('json_float', '/price', None)
    """

    code: str
    pointer: str
    offset: int | None

    def __init__(self, code: str, pointer: str = "", offset: int | None = None) -> None:
        super().__init__(code, pointer, offset)
        self.code = code
        self.pointer = pointer
        self.offset = offset

    def __str__(self) -> str:
        # Keys can come from untrusted bytes: !a keeps control characters off a terminal.
        place = f"at {self.pointer!a}" if self.pointer else "at the root"
        byte = "" if self.offset is None else f", byte {self.offset}"
        return f"{_MESSAGES[self.code]} ({place}{byte})"


def json_pointer(parts: Iterable[str | int]) -> str:
    """The RFC 6901 pointer made of object keys and array indices, from the root down.

    >>> json_pointer(["a/b", 0, "m~n"])
    '/a~1b/0/m~0n'
    >>> json_pointer([])
    ''
    """
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def fault(code: str, parts: Iterable[str | int], offset: int | None = None) -> CanonicalError:
    """The error for the place that `parts` leads to, fit to be shown: long keys are shortened."""
    shown = (
        f"{part[: _MAX_SHOWN_KEY_CHARS - 1]}…"
        if isinstance(part, str) and len(part) > _MAX_SHOWN_KEY_CHARS
        else part
        for part in parts
    )
    return CanonicalError(code, json_pointer(shown), offset)


def holds_only_json(value: object, max_depth: int) -> bool:
    """Whether `value`, which orjson could serialise, is JSON in our sense all the way down.

    No float, tuple, enum, UUID or whatever else orjson writes beyond its JSON types, and at most
    `max_depth` containers inside each other. A False may be a false alarm. Keys are not looked at,
    since orjson refuses all but exact `str`. Only after serialising: that proves the value finite,
    where a list that holds itself twice would double with each level.
    """
    # Level by level: a few C calls for a whole level are several times faster than visits.
    level: Sequence[object] = (value,)
    for _ in range(max_depth + 1):
        types = set(map(type, level))
        if not types <= _JSON_TYPES and not all(map(_counts_as_base, types - _JSON_TYPES)):
            return False
        if dict not in types and list not in types:
            return True
        # Scalars refer to nothing, dicts and lists to just what they hold, so this is the next
        # level without a look at each object.
        level = gc.get_referents(*level)
    return False


def _counts_as_base(kind: type) -> bool:
    # orjson writes an enum's `value`, which need not be the base value of the member.
    return issubclass(kind, (str, int)) and not issubclass(kind, Enum)
