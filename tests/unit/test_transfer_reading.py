"""The fast reading of events says what the models say, and the fast rules what the fold says."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm_ops.app.rules import FoldRules
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.events import ChildRunSpawned, EventEnvelope
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.runtime.history import fold
from mfm_ops.storage.reading import read_event, read_usual
from tests.run_streams import RUN, Stream, any_streams, rows_of, state_of, valid_streams
from tests.support import SOME_ID

CHILD = RunId("00000000-0000-4000-8000-000000000001")


def usual(stream: Stream) -> bool:
    """Whether every event of the stream is recognised without a model."""
    return None not in read_usual(rows_of(stream.bodies), RUN)


def fold_refuses(events: list[EventEnvelope]) -> tuple[int, str] | None:
    try:
        fold(RUN, events)
    except StorageFailure as failure:
        details: Any = failure.info.details
        return details["seq"], details["reason"]
    return None


@given(any_streams())
@settings(max_examples=200)
def test_what_is_recognised_reads_as_the_models_read_it(stream: Stream) -> None:
    bodies = stream.bodies
    for seq, (body, found) in enumerate(
        zip(bodies, read_usual(rows_of(bodies), RUN), strict=True), 1
    ):
        assert found in (None, read_event(body, RUN, seq))


@given(valid_streams(), st.data())
@settings(max_examples=200)
def test_what_the_models_refuse_is_never_recognised(stream: Stream, data: st.DataObject) -> None:
    bodies = stream.bodies
    seq = data.draw(st.integers(1, len(bodies)))
    body = bytearray(bodies[seq - 1])
    at = data.draw(st.integers(0, len(body) - 1))
    byte = data.draw(st.sampled_from(b'{}[]",:.0123456789eE-+ \n\\ax\xff'))
    if data.draw(st.booleans()):
        body[at] = byte
    else:
        body.insert(at, byte)
    changed = bytes(body)
    bodies[seq - 1] = changed
    found = read_usual(rows_of(bodies), RUN)[seq - 1]
    if found is not None:
        assert found == read_event(changed, RUN, seq)


@given(any_streams())
@settings(max_examples=200)
def test_the_rules_accept_nothing_that_the_fold_refuses(stream: Stream) -> None:
    rules = FoldRules(RUN)
    readings = [read_event(body, RUN, seq) for seq, body in enumerate(stream.bodies, 1)]
    sure = rules.accepts(readings)
    broken = fold_refuses(stream.events) if stream.events else None
    assert not (sure and broken)
    if stream.events:
        assert rules.explain(stream.bodies) == broken


@given(valid_streams())
def test_the_rules_are_sure_of_a_usual_run(stream: Stream) -> None:
    rules = FoldRules(RUN)
    for seq, body in enumerate(stream.bodies, 1):
        assert rules.accepts([read_event(body, RUN, seq)])


def test_a_run_of_states_and_facts_needs_no_models_but_at_its_ends() -> None:
    stream = Stream()
    stream.start()
    stream.enter(state_of(0), 0)
    stream.fact("mfm:exec|state:demo", b"1", {"transport": "exec", "request_id": SOME_ID, "n": 3})
    stream.fact("nested", b"1", {"a": {"b": [1, None]}})
    stream.say("said", {"text": "0.5, -1e3"})
    stream.intent("k")
    stream.complete(state_of(0), b"{}")
    found = read_usual(rows_of(stream.bodies), RUN)
    assert [one is None for one in found] == [True, *[False] * 6]


@pytest.mark.parametrize(
    "meta", ['{"a":0.5}', '{"a":1e3}', '{"a":-0}', '{"b":1,"a":2}', '{"a":1,"a":1}', '{"a": 1}']
)
def test_a_payload_that_is_not_canonical_is_not_recognised(meta: str) -> None:
    stream = Stream()
    stream.start()
    stream.fact("k", b"1", {"z": 1})
    stream.fact("l", b"1", {"fine": 1})
    bodies = stream.bodies
    bodies[1] = bodies[1].replace(b'{"z":1}', meta.encode())
    found = read_usual(rows_of(bodies), RUN)
    assert found[1] is None
    assert found[2] is not None
    with pytest.raises(StorageFailure):
        read_event(bodies[1], RUN, 2)


def test_metas_that_are_whole_only_together_are_not_recognised() -> None:
    stream = Stream()
    stream.start()
    for key in "kl":
        stream.fact(key, b"1", {"z": 1})
    bodies = stream.bodies
    bodies[1] = bodies[1].replace(b'{"z":1}', b'{"z":"}')
    bodies[2] = bodies[2].replace(b'{"z":1}', b'{"}')
    assert read_usual(rows_of(bodies), RUN)[1:] == [None, None]


def test_an_event_of_another_run_or_place_is_not_recognised() -> None:
    stream = Stream()
    stream.start()
    stream.enter(state_of(0), 0)
    (body,) = stream.bodies[1:]
    assert read_usual([(2, body, b"")], RUN) != [None]
    assert read_usual([(3, body, b"")], RUN) == [None]
    assert read_usual([(2, body, b"")], CHILD) == [None]


def test_an_event_names_its_artifacts_with_their_kinds() -> None:
    stream = Stream()
    meta = {"request_id": "b" * 64, "policy_digest": "c" * 64, "program_id": "d" * 64}
    stream.say(
        "fact_recorded",
        {"key": "k", "payload_id": SOME_ID, "meta": meta},
    )
    reading = read_event(stream.bodies[0], RUN, 1)
    assert dict(zip(reading.artifacts, reading.kinds, strict=True)) == {
        SOME_ID: '"FactPayload"',
        "b" * 64: '{"Other":"IoRequest"}',
        "c" * 64: '{"Other":"Policy"}',
    }


def test_a_spawned_child_is_linked_and_its_manifest_named() -> None:
    spawned = ChildRunSpawned(
        parent_run_id=RUN, child_run_id=CHILD, child_manifest_id=ArtifactId(SOME_ID)
    )
    stream = Stream()
    stream.say("child_run_spawned", spawned.model_dump(mode="json"))
    reading = read_event(stream.bodies[0], RUN, 1)
    assert reading.links == (CHILD,)
    assert (reading.artifacts, reading.kinds) == ((SOME_ID,), ('"Manifest"',))


def test_what_an_op_says_names_nothing_but_what_the_contract_calls_an_artifact() -> None:
    stream = Stream()
    stream.say("said", {"payload_id": SOME_ID, "child_run_id": str(CHILD)})
    written = {"artifact_id": SOME_ID, "kind": {"Other": "Report"}, "meta": None}
    stream.say("artifact_written", written)
    first, second = (read_event(body, RUN, seq) for seq, body in enumerate(stream.bodies, 1))
    assert (first.artifacts, first.links) == ((), ())
    assert (second.artifacts, second.kinds) == ((SOME_ID,), ('{"Other":"Report"}',))
