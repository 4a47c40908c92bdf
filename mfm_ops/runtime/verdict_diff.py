"""A readable difference of two JSON values, in a bounded number of bounded lines. Pure.

Nothing is redacted here: both values were scanned before they came this far.
"""

from collections.abc import Iterator
from typing import Final, TypeAlias

from mfm_ops.machine.canonical import Json, canonical_json_bytes, json_pointer

__all__ = ["brief", "difference"]

MAX_PLACES: Final = 8
MAX_TEXT: Final = 96
"""Characters of one value that are shown."""

_BEFORE: Final = 24


class _Nothing:
    """Stands where one of the two values has no member."""


NOTHING: Final = _Nothing()

_Side: TypeAlias = "Json | _Nothing"


def difference(recorded: Json, replayed: Json) -> tuple[str, ...]:
    """Lines `- place: recorded value` and `+ place: replayed value`, place by place.

    Places are RFC 6901 pointers in canonical order. Lists that hold the same in another order are
    said to do so.

    >>> difference({"a": 1, "b": [1, 2]}, {"a": 2, "b": [1]})
    ('- /a: 1', '+ /a: 2', '- /b/1: 2')
    """
    lines: list[str] = []
    for shown, (path, old, new) in enumerate(_places(recorded, replayed, ())):
        if shown == MAX_PLACES:
            lines.append("  … and more")
            break
        place = _shortened(json_pointer(path), MAX_TEXT) or "(the whole value)"
        at = _first_difference(old, new)
        if not isinstance(old, _Nothing):
            lines.append(f"- {place}: {_text(old, at)}")
        if not isinstance(new, _Nothing):
            lines.append(f"+ {place}: {_text(new, at)}")
        if isinstance(old, list) and isinstance(new, list):
            lines.append(f"  {place}: the same {len(old)} elements in another order")
    return tuple(lines)


def brief(value: Json) -> str:
    """A value as one line of JSON, cut where it is long.

    >>> brief({"b": 1, "a": [True]})
    '{"a":[true],"b":1}'
    """
    return _shortened(canonical_json_bytes(value).decode(), MAX_TEXT)


def _places(
    old: _Side, new: _Side, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], _Side, _Side]]:
    """Where the two differ, as deep as both have the same containers."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _places(old.get(key, NOTHING), new.get(key, NOTHING), (*path, key))
    elif isinstance(old, list) and isinstance(new, list):
        if _another_order(old, new):
            yield path, old, new
            return
        for index in range(max(len(old), len(new))):
            one = old[index] if index < len(old) else NOTHING
            other = new[index] if index < len(new) else NOTHING
            yield from _places(one, other, (*path, index))
    elif type(old) is not type(new) or old != new:
        yield path, old, new


def _another_order(old: list[Json], new: list[Json]) -> bool:
    one = [canonical_json_bytes(item) for item in old]
    other = [canonical_json_bytes(item) for item in new]
    return one != other and sorted(one) == sorted(other)


def _first_difference(old: _Side, new: _Side) -> int:
    if isinstance(old, str) and isinstance(new, str):
        pairs = enumerate(zip(old, new, strict=False))
        return next((at for at, (a, b) in pairs if a != b), min(len(old), len(new)))
    return 0


def _text(value: Json, at: int) -> str:
    """The value as JSON; of a long text the part around the first difference."""
    if isinstance(value, str) and len(value) > MAX_TEXT:
        start = max(min(at - _BEFORE, len(value) - MAX_TEXT), 0)
        part = value[start : start + MAX_TEXT]
        shown = canonical_json_bytes(part).decode()
        where = f" (from character {start})" if start else ""
        return f"{shown}…{where}" if start + MAX_TEXT < len(value) else f"{shown}{where}"
    return brief(value)


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
