"""Walks a JSON value whose gates are open, and names the first secret in it.

The rules and their many patterns stand behind this module; `secrets` imports it when a document
looks suspicious, so that a program that meets none never pays for them.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import orjson

from mfm_ops.machine.json_rules import Json
from mfm_ops.machine.secrets.argv import options_expose, verb_exposes
from mfm_ops.machine.secrets.assigned import is_assigned
from mfm_ops.machine.secrets.commands import rule_in_command
from mfm_ops.machine.secrets.encoded import MAX_LAYERS
from mfm_ops.machine.secrets.finding import SecretFinding
from mfm_ops.machine.secrets.gates import ALL_OPEN, Gates
from mfm_ops.machine.secrets.names import Strength, name_strength
from mfm_ops.machine.secrets.phrases import is_phrase
from mfm_ops.machine.secrets.records import (
    ARGUMENTS,
    INPUTS,
    Label,
    are_account_keys,
    entries_are_secret,
    is_key_array,
    is_labelled,
    is_private_jwk,
    is_sealed,
    label_of,
    program_of,
    unlocks,
)
from mfm_ops.machine.secrets.text import rule_in_text
from mfm_ops.machine.secrets.values import (
    exposes,
    is_distinct,
    is_sample,
    is_word_phrase,
    looks_generated,
    looks_random,
)

__all__ = ["first_secret"]

_SHORTEST_TELLING_KEY_CHARS = 16
_MAX_ARGV = 256
_MAX_SCRIPT_CHARS = 4096
_ENDS = re.compile(r"[;&|\n]")


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
    label: Label | None = None
    """What a field beside it, or beside an object around it, calls its `value`."""
    sealed: bool = False
    """Whether the names of its fields are those of what was encrypted."""
    each: bool = False
    """Whether every field is a secret."""
    key: str | None = None
    """The key to look at before the value, for the values of an object."""
    program: str = ""
    """For a list of arguments, what a field beside it says is called with them."""


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
            if "kty" in value and is_private_jwk(value):
                return SecretFinding(_pointer(visit.place), "private_jwk")
            pending.extend(reversed(_members(value, visit)))
        elif isinstance(value, list):
            if visit.strength and _is_byte_array(value):
                return SecretFinding(_pointer(visit.place), "sensitive_key")
            if is_key_array(value):
                return SecretFinding(_pointer(visit.place), "key_array")
            if visit.key == "accounts" and are_account_keys(value):
                return SecretFinding(_pointer(visit.place), "account_key")
            if len(value) >= 12 and gates.phrase and _is_word_list(value):
                return SecretFinding(_pointer(visit.place), "bip39_phrase")
            if gates.commands and _is_argv(value) and _command_exposes(value, visit.program):
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
    if visit.program == "chpasswd" and is_assigned(f"chpasswd\n{value}"):
        return "assigned_secret"
    return rule_in_text(value, gates)


def _rule_in_json(text: str, layers: int) -> str | None:
    try:
        value = orjson.loads(text)
    except ValueError:
        return None
    found = first_secret(value, ALL_OPEN, layers=layers)
    return found.rule if found else None


def _is_argv(value: list[Json]) -> bool:
    return bool(value) and all(isinstance(item, str) for item in value[:_MAX_ARGV])


def _command_exposes(value: list[Json], program: str) -> bool:
    words = [item for item in value[:_MAX_ARGV] if isinstance(item, str)]
    if program:
        words.insert(0, program)
    return (
        options_expose(words)
        or verb_exposes(words)
        or any(verb_exposes(command.split()) for command in _scripts(words))
        or rule_in_command(" ".join(words)) is not None
    )


def _scripts(words: list[str]) -> Iterator[str]:
    """The commands of what is handed to a shell as one word."""
    for word in words:
        if " " in word:
            yield from _ENDS.split(word[:_MAX_SCRIPT_CHARS])


def _members(value: dict[str, Json], visit: _Visit) -> list[_Visit]:
    label = label_of(value) or visit.label
    named = (visit.name, visit.strength) if visit.name is not None else label
    passed_on = label if isinstance(value.get("type"), str) else visit.label
    members = []
    for key, member in value.items():
        own = Strength.NONE if visit.sealed else name_strength(key)
        name: str | None = key if own else None
        if own is Strength.KEYED and (not isinstance(member, str) or "pub" in (visit.key or "")):
            name, own = None, Strength.NONE  # a key of a map; `gates` looks no deeper
        if not own and named is not None and is_labelled(key):
            name, own = named
        if not own and visit.each:
            name, own = key, Strength.STRONG
        if key == "params" and unlocks(value):
            name, own = "passphrase", Strength.STRONG
        members.append(
            _Visit(
                member,
                _Place(visit.place, key),
                name,
                own,
                key=key,
                label=passed_on,
                sealed=is_sealed(key),
                each=entries_are_secret(value, key),
                program=program_of(value) if key in ARGUMENTS or key in INPUTS else "",
            )
        )
    return members


def _items(value: list[Json], visit: _Visit) -> list[_Visit]:
    items = []
    told: str | None = None
    for index, item in enumerate(value):
        place = _Place(visit.place, index)
        if visit.name is not None and isinstance(item, str):
            items.append(_Visit(item, place, visit.name, visit.strength))
            continue
        strength = name_strength(told) if told else Strength.NONE
        if strength and told and not told.startswith("-") and not _follows(told, item):
            strength = Strength.NONE
        name = told if strength else None
        items.append(
            _Visit(item, place, name, strength, flag_before=name is not None, label=visit.label)
        )
        told = item if isinstance(item, str) and "=" not in item and item.isascii() else None
    return items


def _follows(name: str, item: Json) -> bool:
    """Whether a word that names a secret and is no option has it behind it: `password V`."""
    if not isinstance(item, str) or len(item) < 6 or is_sample(item):
        return False
    if name.lower() in {"secret", "secrets", "token", "tokens", "pass"}:
        return looks_random(item)  # what commands call the things that they list
    if name_strength(item):
        return False
    digits = any(char.isdigit() for char in item)
    if item.startswith("0x") or is_distinct(item):
        return not item.startswith("0x")
    return digits and "/" not in name and looks_generated(item)


def _is_pair(value: list[Json]) -> bool:
    """`["password", "..."]`, as headers and rows are written; two names are no pair."""
    name, text = value
    if not (isinstance(name, str) and isinstance(text, str)) or name.startswith("-"):
        return False
    if name.lower().endswith("cookie") and is_assigned(f"Cookie: {text}"):
        return True
    likely = looks_generated(text) or looks_random(text) or is_word_phrase(text)
    return likely and exposes(name_strength(name), text, name)


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
