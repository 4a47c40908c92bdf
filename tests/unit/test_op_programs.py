"""`mfm_ops.ops.programs`: the request that `run_program` makes, and what it declares."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.machine.ids import ArtifactId, FactKey
from mfm_ops.machine.io import IoCall, IoResult
from mfm_ops.machine.meta import Idempotency, SideEffectKind, StateMeta
from mfm_ops.machine.plan import ExecutionPlan
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.ops.programs import RunProgram, RunProgramConfig
from mfm_ops.sdk.operation import JsonOption, PathOption
from mfm_ops.sdk.pipeline import parse_config, single_op_pipeline
from mfm_ops.sdk.planner import OpRegistry, build_plan, exports
from tests.unit.sdk_ops import DictContext, manifest_of

pytestmark = pytest.mark.anyio

OP = RunProgram()
REGISTRY = OpRegistry([OP])
HELLO = "/nix/store/hello/bin/hello"


@dataclass
class ScriptedIo:
    """An `IoProvider` that answers every call with `response` and keeps what was asked."""

    response: Json
    calls: list[IoCall] = field(default_factory=list)

    async def call(self, call: IoCall) -> IoResult:
        self.calls.append(call)
        return IoResult(response=self.response)

    async def record_value(self, key: FactKey, value: Json) -> ArtifactId:
        raise AssertionError("no value is recorded")

    async def get_recorded_fact(self, key: FactKey) -> ArtifactId | None:
        raise AssertionError("no fact is looked up")

    async def now_millis(self) -> int:
        raise AssertionError("no time is asked for")

    async def random_bytes(self, n: int) -> bytes:
        raise AssertionError("no random bytes are asked for")


def plan_of(config: RunProgramConfig) -> ExecutionPlan:
    return build_plan(manifest_of(single_op_pipeline(OP, config)), REGISTRY)


def meta_of(config: RunProgramConfig) -> StateMeta:
    return plan_of(config).graph.states[0].state.meta()


async def run(config: RunProgramConfig, response: Json) -> tuple[Sequence[IoCall], DictContext]:
    io, context = ScriptedIo(response), DictContext({})
    (node,) = plan_of(config).graph.states
    await node.state.handle(context, io, cast(EventRecorder, None))
    return io.calls, context


async def test_the_request_is_run_program_v1_with_every_seed_field() -> None:
    config = RunProgramConfig(
        program_path=HELLO, argv=("-g", "hi"), stdin_json={"a": [1]}, env={"LANG": "C"}
    )
    calls, _ = await run(config, None)
    assert [call.model_dump(mode="json") for call in calls] == [
        {
            "namespace": "exec",
            "request": {
                "kind": "run_program_v1",
                "program_path": HELLO,
                "argv": ["-g", "hi"],
                "stdin_json": {"a": [1]},
                "timeout_ms": 300000,
                "env": {"LANG": "C"},
            },
            "fact_key": None,
        }
    ]


async def test_numbers_stand_in_the_request_only_when_asked_for() -> None:
    calls, _ = await run(RunProgramConfig(program_path=HELLO, numbers="string"), None)
    assert calls[0].request["numbers"] == "string"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
async def test_the_programs_answer_is_the_runs_output(response: Json) -> None:
    config = RunProgramConfig(program_path=HELLO)
    _, context = await run(config, response)
    manifest = manifest_of(single_op_pipeline(OP, config))
    assert exports(manifest, REGISTRY, context.dump()) == {"result": response}


def test_a_program_is_read_only_unless_an_effect_is_declared() -> None:
    assert meta_of(RunProgramConfig(program_path=HELLO)).side_effects == SideEffectKind.ReadOnlyIo
    declared = meta_of(RunProgramConfig(program_path=HELLO, effect=True))
    assert declared.side_effects == SideEffectKind.ApplySideEffect
    assert declared.idempotency == Idempotency.none()
    assert "apply_side_effect" in declared.tags


def test_an_idempotency_key_is_the_states() -> None:
    config = RunProgramConfig(program_path=HELLO, effect=True, idempotency_key="payout-7")
    assert meta_of(config).idempotency == Idempotency.key("payout-7")


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({}, "/program_path"),
        ({"program_path": "bin/hello"}, "/program_path"),
        ({"program_path": ""}, "/program_path"),
        ({"program_path": HELLO, "argv": "-g"}, "/argv"),
        ({"program_path": HELLO, "argv": [1]}, "/argv/0"),
        ({"program_path": HELLO, "env": {"A": 1}}, "/env/A"),
        ({"program_path": HELLO, "timeout_ms": 0}, "/timeout_ms"),
        ({"program_path": HELLO, "timeout_ms": 86_400_001}, "/timeout_ms"),
        ({"program_path": HELLO, "numbers": "float"}, "/numbers"),
        ({"program_path": HELLO, "stdin_json": 1.5}, "/stdin_json"),
        ({"program_path": HELLO, "idempotency_key": "k"}, "/idempotency_key"),
        ({"program_path": HELLO, "effect": True, "idempotency_key": ""}, "/idempotency_key"),
        ({"program_path": HELLO, "shell": True}, "/shell"),
    ],
)
def test_a_wrong_config_is_refused_by_its_place(config: dict[str, Json], pointer: str) -> None:
    with pytest.raises(SettingsFailure) as caught:
        parse_config(OP, config)
    assert caught.value.info.details["pointer"] == pointer


def test_every_option_says_what_it_is_for() -> None:
    fields: dict[str, object] = {
        name: info.description for name, info in RunProgramConfig.model_fields.items()
    }
    assert all(fields.values())


def test_options_that_are_json_or_a_path_are_marked() -> None:
    model: type[BaseModel] = RunProgramConfig
    assert JsonOption() in model.model_fields["stdin_json"].metadata
    assert PathOption() in model.model_fields["program_path"].metadata


def test_a_person_reads_the_answer_alone() -> None:
    assert OP.render_text({"result": {"ok": True}}, 80) == '{\n  "ok": true\n}'
    assert OP.render_text({}, 80) is None
