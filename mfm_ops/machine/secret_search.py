"""Walks a JSON value whose gates are open, and names the first secret in it.

The rules and their many patterns stand behind this module; `secrets` imports it when a document
looks suspicious, so that a program that meets none never pays for them.
"""

from typing import NamedTuple

import orjson

from mfm_ops.machine.json_rules import Json
from mfm_ops.machine.secret_assigned import is_assigned
from mfm_ops.machine.secret_commands import rule_in_command
from mfm_ops.machine.secret_encoded import MAX_LAYERS
from mfm_ops.machine.secret_gates import ALL_OPEN, Gates
from mfm_ops.machine.secret_keys import (
    Strength,
    exposes,
    is_word_phrase,
    looks_generated,
    looks_random,
    name_strength,
)
from mfm_ops.machine.secret_phrases import is_phrase
from mfm_ops.machine.secret_text import rule_in_text
from mfm_ops.machine.secrets import SecretFinding

__all__ = ["first_secret"]

_SHORTEST_TELLING_KEY_CHARS = 16
_MAX_ARGV = 256


class _Place(NamedTuple):
    """A step from the root; pointers are built for findings only."""

    parent: "_Place | None"
    token: str | int


class _Visit(NamedTuple):
    value: Json
    place: _Place | None
    name: str | None
    """The sensitive name that the value stands under."""
    strength: Strength
    flag_before: bool = False
    key: str | None = None
    """The key to look at before the value, for the values of an object."""


def first_secret(root: Json, gates: Gates, *, layers: int = 0) -> SecretFinding | None:
    """The first secret in document order, in keys and values alike.

    Nothing recurses but for JSON inside a string, `MAX_LAYERS` deep.
    """
    pending = [_Visit(root, None, None, Strength.NONE)]
    while pending:
        visit = pending.pop()
        value = visit.value
        if visit.key is not None and len(visit.key) >= _SHORTEST_TELLING_KEY_CHARS:
            rule = rule_in_text(visit.key, gates)
            if rule:
                parent = visit.place.parent if visit.place else None
                return SecretFinding(_pointer(parent), rule)
        if isinstance(value, str):
            rule = _rule_for_string(value, visit, gates)
            if rule is None and value[:1] in {"{", "["} and layers < MAX_LAYERS:
                rule = _rule_in_json(value, layers + 1)
            if rule:
                return SecretFinding(_pointer(visit.place), rule)
        elif isinstance(value, dict):
            if "kty" in value and _is_private_jwk(value):
                return SecretFinding(_pointer(visit.place), "private_jwk")
            pending.extend(reversed(_members(value, visit)))
        elif isinstance(value, list):
            if visit.strength and _is_byte_array(value):
                return SecretFinding(_pointer(visit.place), "sensitive_key")
            if len(value) >= 12 and gates.phrase and _is_word_list(value):
                return SecretFinding(_pointer(visit.place), "bip39_phrase")
            if gates.commands and _is_argv(value) and rule_in_command(_command_line(value)):
                return SecretFinding(_pointer(visit.place), "command_password")
            if len(value) == 2 and _is_pair(value):
                return SecretFinding(_pointer(visit.place), "sensitive_key")
            pending.extend(reversed(_items(value, visit)))
    return None


def _rule_for_string(value: str, visit: _Visit, gates: Gates) -> str | None:
    name = visit.name
    if name is not None and "ookie" in name and is_assigned(f"Cookie: {value}"):
        return "cookie"
    if name is not None and exposes(visit.strength, value, name):
        if visit.flag_before:
            return None if value.startswith("-") else "sensitive_flag"
        return "sensitive_key"
    return rule_in_text(value, gates)


def _rule_in_json(text: str, layers: int) -> str | None:
    try:
        value = orjson.loads(text)
    except ValueError:
        return None
    found = first_secret(value, ALL_OPEN, layers=layers)
    return found.rule if found else None


def _is_argv(value: list[Json]) -> bool:
    return len(value) > 1 and all(isinstance(item, str) for item in value[:_MAX_ARGV])


def _command_line(value: list[Json]) -> str:
    return " ".join(item for item in value[:_MAX_ARGV] if isinstance(item, str))


def _members(value: dict[str, Json], visit: _Visit) -> list[_Visit]:
    named = visit.name
    strength = visit.strength
    if named is None and "value" in value:
        # {"name": "DB_PASSWORD", "value": "..."}: environments and headers in lists.
        for label in ("name", "key", "Name", "Key"):
            label_text = value.get(label)
            if isinstance(label_text, str) and (found := name_strength(label_text)):
                named, strength = label_text, found
    members = []
    for key, member in value.items():
        own = name_strength(key)
        name: str | None = key if own else None
        if not own and key == "value" and named is not None:
            name, own = named, strength
        members.append(_Visit(member, _Place(visit.place, key), name, own, key=key))
    return members


def _items(value: list[Json], visit: _Visit) -> list[_Visit]:
    items = []
    flag: str | None = None
    for index, item in enumerate(value):
        place = _Place(visit.place, index)
        if visit.name is not None and isinstance(item, str):
            items.append(_Visit(item, place, visit.name, visit.strength))
            continue
        strength = name_strength(flag) if flag else Strength.NONE
        name = flag if strength else None
        items.append(_Visit(item, place, name, strength, flag_before=name is not None))
        is_flag = isinstance(item, str) and item.startswith("-") and item[1:].strip("-").isascii()
        flag = item if is_flag and isinstance(item, str) and "=" not in item else None
    return items


def _is_pair(value: list[Json]) -> bool:
    """`["password", "..."]`, as headers and rows are written; two names are no pair."""
    name, text = value
    if not (isinstance(name, str) and isinstance(text, str)) or name.startswith("-"):
        return False
    likely = looks_generated(text) or looks_random(text) or is_word_phrase(text)
    return likely and exposes(name_strength(name), text, name)


def _is_private_jwk(value: dict[str, Json]) -> bool:
    return any(isinstance(part := value.get(field), str) and len(part) >= 16 for field in "dk")


def _is_byte_array(value: list[Json]) -> bool:
    return len(value) >= 16 and all(type(item) is int and 0 <= item <= 255 for item in value)


def _is_word_list(value: list[Json]) -> bool:
    words = [item.lower() if isinstance(item, str) else "" for item in value]
    return is_phrase(words)


def _pointer(place: _Place | None) -> str:
    tokens: list[str] = []
    while place is not None:
        token = place.token
        tokens.append(str(token).replace("~", "~0").replace("/", "~1"))
        place = place.parent
    return "".join(f"/{token}" for token in reversed(tokens))
