"""`mfm_ops.runtime.recorder`: a state's events are checked, filtered by profile and buffered."""

from contextlib import nullcontext
from typing import Any

import pytest

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import MAX_DEPTH, Json, artifact_id_for_bytes
from mfm_ops.machine.config import EventProfile
from mfm_ops.machine.errors import RunFailure
from mfm_ops.machine.events import DOMAIN_EVENT_ARTIFACT_WRITTEN, DomainEvent, EventEnvelope
from mfm_ops.machine.ids import RunId
from mfm_ops.runtime.recorder import AttemptRecorder
from mfm_ops.runtime.writer import RunWriter
from mfm_ops.storage.memory import MemoryStore
from tests.support import CANARY, sid

pytestmark = pytest.mark.anyio


class Desk:
    def __init__(self, profile: EventProfile = EventProfile.Normal) -> None:
        self.run_id = RunId.random()
        self.store = MemoryStore()
        self.writer = RunWriter(self.store, self.run_id, 0, now_millis=lambda: 7)
        self.recorder = AttemptRecorder(self.writer, profile, sid("s"), 1, self.store.exists)

    async def stored(self) -> list[EventEnvelope]:
        await self.writer.flush()
        return await self.store.read_range(self.run_id, 1)


def event(name: str = "saved", payload: Any = None) -> DomainEvent:
    return DomainEvent(name=name, payload=payload)


async def test_an_event_is_stored_with_its_attempt() -> None:
    desk = Desk()
    await desk.recorder.emit(event(payload={"n": 1}))
    (stored,) = await desk.stored()
    assert stored.event.Domain == event(payload={"n": 1})
    assert (stored.state_id, stored.attempt) == (sid("s"), 1)


async def test_an_event_keeps_the_payload_that_it_was_emitted_with() -> None:
    desk = Desk()
    payload: dict[str, Json] = {}
    for number in range(3):
        payload["n"] = number
        await desk.recorder.emit(event(payload=payload))
    payload["token"] = CANARY
    assert [e.event.Domain.payload for e in await desk.stored()] == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize("name", ["fact_recorded", "mfm.driver", "mfm.x", "child_run_spawned"])
@pytest.mark.parametrize("profile", [EventProfile.Minimal, EventProfile.Verbose])
async def test_ops_cannot_emit_what_is_the_engines(name: str, profile: EventProfile) -> None:
    desk = Desk(profile)
    with pytest.raises(RunFailure) as refused:
        await desk.recorder.emit(event(name))
    assert refused.value.info.code == "event_name_reserved"
    assert await desk.stored() == []


@pytest.mark.parametrize(
    ("profile", "kept"),
    [
        (EventProfile.Minimal, 0),
        (EventProfile.Normal, 1),
        (EventProfile.Verbose, 1),
        (EventProfile.custom("mine"), 1),
    ],
)
async def test_only_the_minimal_profile_drops_an_ops_events(
    profile: EventProfile, kept: int
) -> None:
    desk = Desk(profile)
    await desk.recorder.emit(event())
    assert len(await desk.stored()) == kept


@pytest.mark.parametrize("profile", [EventProfile.Minimal, EventProfile.Normal])
async def test_a_secret_is_refused_though_the_profile_would_drop_it(profile: EventProfile) -> None:
    desk = Desk(profile)
    for holding in (event(payload={"a": [CANARY]}), event(name=CANARY)):
        with pytest.raises(RunFailure) as refused:
            await desk.recorder.emit(holding)
        assert refused.value.info.code == "secrets_detected"
        assert CANARY not in str(refused.value.info)
    assert await desk.stored() == []


async def test_of_many_events_all_or_none_are_taken() -> None:
    desk = Desk()
    with pytest.raises(RunFailure):
        await desk.recorder.emit_many([event("a"), event(payload=CANARY)])
    assert await desk.stored() == []
    await desk.recorder.emit_many([event("a"), event("b")])
    assert [e.event.Domain.name for e in await desk.stored()] == ["a", "b"]


async def test_a_payload_without_canonical_form_is_refused_with_its_place() -> None:
    desk = Desk()
    payload: dict[str, Any] = {"a": [1]}
    odd = event(payload=payload)
    payload["a"][0] = 1.5
    with pytest.raises(RunFailure) as refused:
        await desk.recorder.emit(odd)
    assert refused.value.info.code == "event_invalid"
    assert refused.value.info.details == {"pointer": "/a/0", "reason": "json_float"}


@pytest.mark.parametrize("depth", range(MAX_DEPTH - 8, MAX_DEPTH + 2))
async def test_whatever_depth_is_accepted_can_be_stored(depth: int) -> None:
    deep: Json = 0
    for _ in range(depth):
        deep = [deep]
    desk = Desk()
    fits = depth <= MAX_DEPTH - 3
    with nullcontext() if fits else pytest.raises(RunFailure, match="event_invalid"):
        await desk.recorder.emit(event(payload=deep))
    assert len(await desk.stored()) == int(fits)


@pytest.mark.parametrize("profile", [EventProfile.Minimal, EventProfile.Normal])
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("word", ["payload_ref", "payload"])
async def test_an_event_names_only_artifacts_that_are_stored(
    word: str, stored: bool, profile: EventProfile
) -> None:
    desk = Desk(profile)
    named = artifact_id_for_bytes(b"1")
    if stored:
        desk.store.stage(ArtifactKind.FactPayload, b"1")
    written: Json = {"artifact_id": str(named), "kind": "Output", "meta": None}
    naming = {
        "payload_ref": DomainEvent(name="saved", payload=None, payload_ref=named),
        "payload": event(DOMAIN_EVENT_ARTIFACT_WRITTEN, written),
    }
    if stored:
        await desk.recorder.emit_many([event(), naming[word]])
        return
    with pytest.raises(RunFailure) as refused:
        await desk.recorder.emit_many([event(), naming[word]])
    assert refused.value.info.code == "event_invalid"
    assert refused.value.info.details == {"reason": "unknown_artifact"}
    assert not desk.writer.has_pending


async def test_what_is_no_artifact_written_of_the_contracts_names_nothing() -> None:
    desk = Desk()
    await desk.recorder.emit(event(DOMAIN_EVENT_ARTIFACT_WRITTEN, {"artifact_id": "0" * 64}))
    assert len(await desk.stored()) == 1


@pytest.mark.parametrize("payload_ref", ["not an id", 5])
async def test_an_event_that_could_not_be_read_again_is_refused(payload_ref: object) -> None:
    desk = Desk()
    with pytest.raises(RunFailure) as refused:
        await desk.recorder.emit(event().model_copy(update={"payload_ref": payload_ref}))
    assert refused.value.info.code == "event_invalid"
