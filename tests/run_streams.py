"""Event streams for tests that move or verify them: valid ones, and ones that break the rules.

Everything is drawn by hypothesis; `Stream.bodies` are the bytes that a store would hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from mfm_ops.machine import events as ev
from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import artifact_id_for_bytes
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import StateError
from mfm_ops.machine.events import EventEnvelope, RunStatus
from mfm_ops.machine.ids import ArtifactId, OpId, RunId, StateId
from mfm_ops.machine.stores import EventStore, StagingArtifactStore
from mfm_ops.storage.stream import encode
from tests.support import domain, kernel

RUN = RunId("6ba7b810-9dad-41d1-80b4-00c04fd430c8")

payloads = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
metas = st.dictionaries(st.text(max_size=5), payloads, max_size=3)
blobs = st.binary(max_size=24) | st.sampled_from([b"{}", b"[1]", b"x" * 70_000])


@dataclass
class Stream:
    """A run that grows; `artifacts` are all that its events name."""

    run_id: RunId = RUN
    events: list[EventEnvelope] = field(default_factory=list)
    artifacts: list[tuple[ArtifactKind, bytes]] = field(default_factory=list)

    @property
    def seq(self) -> int:
        return len(self.events) + 1

    @property
    def bodies(self) -> list[bytes]:
        return encode(self.run_id, 0, self.events)

    def artifact(self, kind: ArtifactKind, data: bytes) -> ArtifactId:
        self.artifacts.append((kind, data))
        return artifact_id_for_bytes(data)

    def snapshot(self, data: bytes = b"{}") -> ArtifactId:
        return self.artifact(ArtifactKind.ContextSnapshot, data)

    def add(self, body: Any, ts_millis: int | None = None) -> None:
        event = kernel(self.run_id, self.seq, body)
        self.events.append(event.model_copy(update={"ts_millis": ts_millis}))

    def say(self, name: str, payload: Any = None, **where: Any) -> None:
        self.events.append(domain(self.run_id, self.seq, name, payload, **where))

    def start(self) -> None:
        manifest_id = self.artifact(ArtifactKind.Manifest, b'{"a":"manifest"}')
        opening = ev.RunStarted(
            op_id=OpId("demo"), manifest_id=manifest_id, initial_snapshot_id=self.snapshot()
        )
        self.add(opening, 7)

    def enter(self, state: StateId, attempt: int) -> None:
        entered = ev.StateEntered(state_id=state, attempt=attempt, base_snapshot_id=self.snapshot())
        self.add(entered, 8)

    def complete(self, state: StateId, data: bytes) -> None:
        done = ev.StateCompleted(state_id=state, context_snapshot_id=self.snapshot(data))
        self.add(done, 9)

    def fail(self, state: StateId) -> None:
        error = StateError(state_id=state, info=error_info("state_panicked", "it broke"))
        failed = ev.StateFailed(state_id=state, error=error, failure_snapshot_id=self.snapshot())
        self.add(failed)

    def fact(self, key: str, data: bytes, meta: Any) -> None:
        payload_id = self.artifact(ArtifactKind.FactPayload, data)
        payload = {"key": key, "payload_id": str(payload_id), "meta": meta}
        self.say("fact_recorded", payload, state_id=state_of(0), attempt=0)

    def intent(self, key: str) -> None:
        request_id = self.artifact(ArtifactKind.other("IoRequest"), b'"?"')
        self.say("mfm.io_intent", {"key": key, "request_id": str(request_id)})

    def end(self, status: RunStatus) -> None:
        self.add(ev.RunCompleted(status=status, final_snapshot_id=self.snapshot()))

    async def store_in(self, store: EventStore, upto: int | None = None) -> None:
        """Append the first `upto` events, and before them all artifacts."""
        assert isinstance(store, StagingArtifactStore)
        for kind, data in self.artifacts:
            await store.put(kind, data)
        await store.append(self.run_id, 0, self.events[:upto])


def state_of(number: int) -> StateId:
    return StateId(f"demo.main.s{number}")


_actions = st.tuples(
    st.sampled_from(["enter", "complete", "fail", "fact", "say", "intent", "driver"]),
    st.integers(0, 3),
    st.integers(0, 2),
    blobs,
    payloads,
    metas,
)


def _act(stream: Stream, action: tuple[Any, ...]) -> None:
    what, number, attempt, data, payload, meta = action
    state = state_of(number)
    match what:
        case "enter":
            stream.enter(state, attempt)
        case "complete":
            stream.complete(state, data)
        case "fail":
            stream.fail(state)
        case "fact":
            stream.fact(f"k{number}", data, meta)
        case "intent":
            stream.intent(f"k{number}")
        case "driver":
            stream.say("mfm.driver", {"driver_id": "d", "policy_digest": None, "build": meta})
        case _:
            stream.say("said", payload)


@st.composite
def any_streams(draw: st.DrawFn) -> Stream:
    """Well-formed events in any order: most of them break a rule somewhere."""
    stream = Stream()
    if draw(st.integers(0, 9)):
        stream.start()
    for action in draw(st.lists(_actions, max_size=12)):
        _act(stream, action)
        if not draw(st.integers(0, 15)):
            stream.end(RunStatus.Failed)
    return stream


@st.composite
def valid_streams(draw: st.DrawFn) -> Stream:
    """Runs as an engine could have written them, ended or not."""
    stream = Stream()
    stream.start()
    attempts: dict[int, int] = {}
    open_states: set[int] = set()
    done: set[int] = set()
    facts: dict[int, bytes] = {}
    for action in draw(st.lists(_actions, max_size=14)):
        what, number, _, data, *rest = action
        if what == "enter" and number not in open_states | done:
            _act(stream, ("enter", number, attempts.get(number, 0), data, *rest))
            attempts[number] = attempts.get(number, 0) + 1
            open_states.add(number)
        elif what in ("complete", "fail") and number in open_states:
            _act(stream, action)
            open_states.discard(number)
            done |= {number} if what == "complete" else set()
        elif what == "fact":
            _act(stream, (what, number, 0, facts.setdefault(number, data), *rest))
        elif what in ("say", "intent", "driver"):
            _act(stream, action)
    if draw(st.booleans()):
        stream.end(draw(st.sampled_from(list(RunStatus))))
    return stream


def rows_of(bodies: Sequence[bytes]) -> list[tuple[int, bytes, bytes]]:
    return [(seq, body, b"") for seq, body in enumerate(bodies, 1)]
