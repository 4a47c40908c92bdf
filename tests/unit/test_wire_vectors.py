"""Every vector that the seed's own Rust types made, through the Python types of the same names."""

import importlib
import json
from collections import Counter, OrderedDict, defaultdict
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from mfm_ops.machine.canonical import (
    CanonicalError,
    artifact_id_for_bytes,
    canonical_json_bytes,
    parse_strict,
)
from mfm_ops.machine.events import DomainEvent
from mfm_ops.machine.ids import OpId

MODULES = ("ids", "config", "meta", "errors", "events", "io", "state", "plan", "stores", "engine")
FILES = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((FILES / "wire_types.json").read_bytes())
EDGES = json.loads((FILES / "wire_edges.json").read_bytes())["cases"]
# DECISIONS.md, 2: what serde reads and never writes is refused, beside what the contract names.
STRICTER = {
    "duplicate key",
    "float",
    "integer past 2^53-1",
    "malformed id",
    "nanoseconds that carry",
    "struct as an array",
    "unit variant as an object",
    "unknown field",
}


@cache
def wire_type(name: str) -> TypeAdapter[Any]:
    for module in MODULES:
        found = getattr(importlib.import_module(f"mfm_ops.machine.{module}"), name, None)
        if found is not None:
            return TypeAdapter(found)
    raise AssertionError(f"no module of the contract has {name}")


def load(name: str, value: object) -> Any:
    """The way of untrusted bytes: the strict parser, then the model."""
    data = json.dumps(value).encode()
    parse_strict(data)
    return wire_type(name).validate_json(data)


@pytest.mark.parametrize("case", VECTORS["round_trip"], ids=lambda c: c["type"])
def test_a_value_of_the_seed_keeps_its_bytes_and_id(case: dict[str, Any]) -> None:
    adapter = wire_type(case["type"])
    loaded = load(case["type"], case["json"])
    dumped = canonical_json_bytes(adapter.dump_python(loaded, mode="json"))
    assert dumped == canonical_json_bytes(case["json"])
    assert artifact_id_for_bytes(dumped) == case["artifact_id"]


@pytest.mark.parametrize("case", VECTORS["parse"], ids=lambda c: f"{c['type']}-{c['json']!r:.20}")
def test_a_type_accepts_what_the_seed_accepts(case: dict[str, Any]) -> None:
    try:
        load(case["type"], case["json"])
        accepted = True
    except (ValidationError, ValueError):
        accepted = False
    assert accepted == case["accepted"]


@pytest.mark.parametrize("case", EDGES, ids=lambda c: f"{c['type']}-{c['text']:.40}")
def test_what_the_seed_makes_of_an_odd_text_is_made_of_it_or_refused_for_a_reason(
    case: dict[str, Any],
) -> None:
    adapter = wire_type(case["type"])
    try:
        parse_strict(case["text"].encode())
        loaded = adapter.validate_json(case["text"])
    except (ValidationError, CanonicalError):
        assert case["seed"] is None or case["refused"] in STRICTER
        return
    assert case["seed"] is not None
    assert "refused" not in case
    assert adapter.dump_python(loaded, mode="json") == json.loads(case["seed"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DomainEvent", {"name": "x", "payload": {}, "extra": 1}),
        ("DomainEvent", {"name": "x", "payload": {"deep": [1.5]}}),
        ("DomainEvent", {"name": "x", "payload": 2**53}),
        ("ArtifactId", "F" * 64),
        ("ArtifactId", "a" * 63),
        ("ArtifactId", "a" * 64 + "\n"),
        ("OpPath", "a"),
        ("OpPath", "a.b.c"),
        ("OpPath", "a.b\n"),
        ("Event", {}),
        ("Event", {"Kernel": None}),
        ("KernelEvent", {"Paused": {}}),
        ("RunId", "6ba7b810-9dad11d1-80b4-00c04fd430c8"),
        ("RunId", "6ba7b8109dad11d180b400c04fd430c8\n"),
        ("BackoffPolicy", {"Fixed": {"delay": {"secs": 0, "nanos": 1_000_000_000}}}),
        ("RetryPolicy", {"max_attempts": True, "backoff": {}}),
    ],
)
def test_what_the_contract_refuses_beyond_serde(name: str, value: object) -> None:
    with pytest.raises((ValidationError, CanonicalError)):
        load(name, value)


def test_an_extension_of_ours_is_omitted_while_unset() -> None:
    envelope = {
        "event": {"Domain": {"name": "n", "payload": None, "payload_ref": None}},
        "run_id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "seq": 1,
        "ts_millis": None,
    }
    ours = envelope | {"state_id": "a.b.c", "attempt": 2}
    for value in (envelope, ours):
        assert (
            wire_type("EventEnvelope").dump_python(load("EventEnvelope", value), mode="json")
            == value
        )


@pytest.mark.parametrize(
    "text",
    [
        "urn:uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "{6ba7b810-9dad-11d1-80b4-00c04fd430c8}",
        "6BA7B8109DAD11D180B400C04FD430C8",
    ],
)
def test_a_run_id_is_normalised_to_one_form(text: str) -> None:
    assert load("RunId", text) == "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def test_a_value_that_holds_itself_is_looked_at_once() -> None:
    endless: list[Any] = []
    endless.extend([endless, endless, 1.5])
    with pytest.raises(ValidationError, match="json_float"):
        TypeAdapter(DomainEvent).validate_python({"name": "x", "payload": endless})


class Level(IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("payload", "stored"),
    [
        (Counter("abba"), {"a": 2, "b": 2}),
        (OrderedDict(b=[Level.HIGH], a=None), {"a": None, "b": [3]}),
        ({OpId("a"): OpId("b")}, {"a": "b"}),
    ],
)
def test_a_value_of_a_subclass_is_taken_as_the_encoder_takes_it(payload: Any, stored: Any) -> None:
    event = DomainEvent(name="x", payload=payload)
    assert event.model_dump(mode="json")["payload"] == stored
    assert canonical_json_bytes(event.payload) == canonical_json_bytes(stored)


@pytest.mark.parametrize("payload", [defaultdict(int, a=1.5), OrderedDict(a=2**53), Counter([1])])
def test_a_value_of_a_subclass_is_looked_into(payload: Any) -> None:
    with pytest.raises(ValidationError, match="json_"):
        DomainEvent(name="x", payload=payload)
