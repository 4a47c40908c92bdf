"""The pure parts of child runs: who may drive a child, what it inherits, what a request must be."""

import pytest

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.child_runs import (
    AwaitChildRun,
    ChildRunConfig,
    ChildRunOutcome,
    SpawnChildRun,
    child_run_id,
)
from mfm_ops.machine.config import EventProfile
from mfm_ops.machine.errors import StateFailure, StorageFailure, TransportFailure
from mfm_ops.machine.events import (
    DOMAIN_EVENT_CHILD_RUN_COMPLETED,
    DOMAIN_EVENT_CHILD_RUN_SPAWNED,
    EVENT_CHILD_OF,
    ChildRunCompleted,
    ChildRunSpawned,
    EventEnvelope,
    RunStarted,
    RunStatus,
)
from mfm_ops.machine.ids import FactKey, RunId
from mfm_ops.machine.io import IoCall, IoResult
from mfm_ops.machine.meta import Tag
from mfm_ops.runtime.child_lineage import Lineage
from mfm_ops.runtime.child_plan import child_config, parse_request
from mfm_ops.runtime.driver import this_process
from mfm_ops.runtime.history import fold
from mfm_ops.sdk.child_runs import child_outputs
from tests.support import OP, SOME_ID, config, domain, kernel

pytestmark = pytest.mark.anyio

PARENT = RunId("00000000-0000-4000-8000-000000000001")
KEY = FactKey("k")
CHILD = child_run_id(PARENT, KEY)
LINEAGE = Lineage(PARENT, KEY, 1, "now", frozenset({"before"}))


def mark(for_driver: str | None) -> dict[str, Json]:
    """The mark of a driver that lives: this process."""
    said = this_process().to_json()
    return said if for_driver is None else {**said, "for_driver": for_driver}


def test_who_worked_for_an_earlier_driver_of_the_parent_is_replaced() -> None:
    assert LINEAGE.supersedes(mark("before"))
    assert not LINEAGE.leaves_to(mark("before"))


@pytest.mark.parametrize("for_driver", [None, "a newer one", "now"])
def test_whoever_else_lives_keeps_the_child(for_driver: str | None) -> None:
    assert not LINEAGE.supersedes(mark(for_driver))
    assert LINEAGE.leaves_to(mark(for_driver))


def test_nobody_keeps_a_child_that_is_dead_or_gone() -> None:
    assert not LINEAGE.leaves_to(None)
    assert not LINEAGE.leaves_to({**mark(None), "boot_id": "an earlier one"})


def test_skip_tags_and_the_source_of_a_replay_are_not_inherited() -> None:
    parent = config(skip=("tag",), replay_of=PARENT)
    child = child_config(parent, None)
    assert (child.skip_tags, child.replay_of) == ((), None)
    assert child == child_config(config(), None)


def test_what_is_asked_of_a_run_config_replaces_what_is_inherited() -> None:
    asked = ChildRunConfig(event_profile=EventProfile.Minimal, skip_tags=(Tag("tag"),))
    child = child_config(config(), asked)
    assert child == config(profile=EventProfile.Minimal, skip=("tag",))


def test_a_deadline_can_be_taken_away_and_a_retry_policy_cannot() -> None:
    parent = config().model_copy(update={"run_deadline_ms": 5})
    assert child_config(parent, ChildRunConfig(run_deadline_ms=None)).run_deadline_ms is None
    with pytest.raises(TransportFailure) as caught:
        child_config(parent, ChildRunConfig(retry_policy=None))
    assert caught.value.info.code == "child_run_invalid"


def test_the_flakes_of_a_child_are_some_of_its_parents() -> None:
    parent = config().model_copy(update={"nix_flake_allowlist": ("github:a/b", "github:c/d")})
    narrow = ChildRunConfig(nix_flake_allowlist=("github:c/d",))
    assert child_config(parent, narrow).nix_flake_allowlist == ("github:c/d",)
    with pytest.raises(TransportFailure) as caught:
        child_config(parent, ChildRunConfig(nix_flake_allowlist=("github:c/d", "github:c")))
    assert caught.value.info.details == {
        "pointer": "/run_config/nix_flake_allowlist/1",
        "reason": "wider_than_parent",
    }


@pytest.mark.parametrize(
    ("request_", "pointer"),
    [
        ({}, ""),
        ([], ""),
        ({"op_id": "a", "pipeline": {}}, ""),
        ({"pipeline": {}, "op_config": {}}, ""),
        ({"op_id": "A"}, "/op_id"),
        ({"op_id": "a", "more": 1}, "/more"),
        ({"op_id": "a", "kind": "spawn_child_run_v2"}, "/kind"),
        ({"op_id": "a", "run_config": {"io_mode": "Replay"}}, "/run_config/io_mode"),
        ({"op_id": "a", "run_config": {"run_deadline_ms": 0}}, "/run_config/run_deadline_ms"),
        ({"op_id": "a", "input": []}, "/input"),
    ],
)
def test_a_wrong_request_is_refused_by_its_place(request_: Json, pointer: str) -> None:
    with pytest.raises(TransportFailure) as caught:
        parse_request(SpawnChildRun, request_)
    info = caught.value.info
    assert info.code == "child_run_invalid"
    assert isinstance(info.details, dict)
    assert info.details["pointer"] == pointer


def test_a_child_is_awaited_by_its_id() -> None:
    assert parse_request(AwaitChildRun, {"child_run_id": CHILD.upper()}).child_run_id == CHILD
    with pytest.raises(TransportFailure):
        parse_request(AwaitChildRun, {"child_run_id": "x"})


# What a history tells


def stream(*events: tuple[str, Json]) -> list[EventEnvelope]:
    started = RunStarted(op_id=OP, manifest_id=SOME_ID, initial_snapshot_id=SOME_ID)
    return [
        kernel(PARENT, 1, started),
        *(domain(PARENT, seq, name, said) for seq, (name, said) in enumerate(events, 2)),
    ]


def spawned(parent: RunId = PARENT) -> tuple[str, Json]:
    body = ChildRunSpawned(parent_run_id=parent, child_run_id=CHILD, child_manifest_id=SOME_ID)
    return DOMAIN_EVENT_CHILD_RUN_SPAWNED, body.model_dump(mode="json")


COMPLETED = (
    DOMAIN_EVENT_CHILD_RUN_COMPLETED,
    ChildRunCompleted(child_run_id=CHILD, status=RunStatus.Failed).model_dump(mode="json"),
)


def test_a_spawned_child_is_open_until_its_end_is_told() -> None:
    history = fold(PARENT, stream(spawned()))
    assert [child.run_id for child in history.open_children] == [CHILD]
    history = fold(PARENT, stream(spawned(), COMPLETED))
    assert history.open_children == []
    assert history.children[CHILD].status is RunStatus.Failed


def test_another_runs_child_that_a_fork_keeps_is_none_of_its_own() -> None:
    history = fold(PARENT, stream(spawned(RunId.random()), spawned()))
    assert len(history.children) == 1
    assert history.open_children == []


def test_an_end_without_a_beginning_is_passed_over() -> None:
    # A fork may keep the state that awaited a child, and not the one that spawned it.
    assert fold(PARENT, stream(COMPLETED)).children == {}


@pytest.mark.parametrize(
    "name", [DOMAIN_EVENT_CHILD_RUN_SPAWNED, DOMAIN_EVENT_CHILD_RUN_COMPLETED, EVENT_CHILD_OF]
)
def test_a_linkage_event_without_its_fields_is_damage(name: str) -> None:
    with pytest.raises(StorageFailure) as caught:
        fold(PARENT, stream((name, {"child_run_id": "x"})))
    assert caught.value.info.code == "history_invalid"


# What a handler is told


class Answers:
    """An `IoProvider` that knows one answer."""

    def __init__(self, **answer: Json) -> None:
        outcome = {"child_run_id": str(CHILD), "final_snapshot_id": None, **answer}
        self.answer = outcome

    async def call(self, call: IoCall) -> IoResult:
        return IoResult(response=self.answer)


async def test_exports_are_what_a_completed_child_gives() -> None:
    io = Answers(status="Completed", outputs={"a": 1})
    assert await child_outputs(io, CHILD) == {"a": 1}  # type: ignore[arg-type]


@pytest.mark.parametrize("state_id", [None, "child.main.only"])
async def test_a_failed_child_is_told_with_its_code_and_state(state_id: str | None) -> None:
    io = Answers(status="Failed", failure={"code": "broken", "state_id": state_id})
    with pytest.raises(StateFailure) as caught:
        await child_outputs(io, CHILD)  # type: ignore[arg-type]
    info = caught.value.info
    assert (info.code, info.retryable) == ("child_run_failed", False)
    expected = {"child_run_id": CHILD, "child_code": "broken"}
    if state_id is not None:
        expected["child_state_id"] = state_id
    assert info.details == expected


async def test_a_cancelled_child_is_told() -> None:
    with pytest.raises(StateFailure) as caught:
        await child_outputs(Answers(status="Cancelled"), CHILD)  # type: ignore[arg-type]
    assert caught.value.info.code == "child_run_cancelled"


def test_an_outcome_leaves_out_what_it_has_not() -> None:
    outcome = ChildRunOutcome(child_run_id=CHILD, status=RunStatus.Cancelled)
    assert outcome.model_dump(mode="json") == {
        "child_run_id": CHILD,
        "status": "Cancelled",
        "final_snapshot_id": None,
    }
