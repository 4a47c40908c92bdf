"""`mfm_ops.ops.nix_app`: its two calls, their keys, and what it declares."""

from dataclasses import dataclass, field
from typing import cast

import pytest

from mfm_ops.machine.canonical import Json, artifact_id_for_json
from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.machine.ids import ArtifactId, FactKey
from mfm_ops.machine.io import IoCall, IoResult
from mfm_ops.machine.meta import Idempotency, SideEffectKind
from mfm_ops.machine.plan import ExecutionPlan
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.ops.nix_app import NixApp, NixAppConfig
from mfm_ops.sdk.pipeline import parse_config, single_op_pipeline
from mfm_ops.sdk.planner import OpRegistry, build_plan, exports
from tests.unit.sdk_ops import DictContext, manifest_of

pytestmark = pytest.mark.anyio

OP = NixApp()
REGISTRY = OpRegistry([OP])
APP = "github:willyrgf/mfm#tool"
PROGRAM = "/nix/store/0c3jjhnrrxdgnyvh9r7pzrwp6mzyq9c5-tool/bin/tool"


@dataclass
class ScriptedIo:
    """An `IoProvider` that resolves every app to `PROGRAM` and keeps what was asked."""

    calls: list[IoCall] = field(default_factory=list)

    async def call(self, call: IoCall) -> IoResult:
        self.calls.append(call)
        resolved = {"program_path": PROGRAM, "pinned": True}
        return IoResult(response=resolved if call.namespace == "nix.exec" else {"ok": 1})

    async def record_value(self, key: FactKey, value: Json) -> ArtifactId:
        raise AssertionError("no value is recorded")

    async def get_recorded_fact(self, key: FactKey) -> ArtifactId | None:
        raise AssertionError("no fact is looked up")

    async def now_millis(self) -> int:
        raise AssertionError("no time is asked for")

    async def random_bytes(self, n: int) -> bytes:
        raise AssertionError("no random bytes are asked for")


def plan_of(config: NixAppConfig) -> ExecutionPlan:
    return build_plan(manifest_of(single_op_pipeline(OP, config)), REGISTRY)


async def run(config: NixAppConfig) -> tuple[list[IoCall], DictContext]:
    io, context = ScriptedIo(), DictContext({})
    for node in plan_of(config).graph.states:
        await node.state.handle(context, io, cast(EventRecorder, None))
    return io.calls, context


async def test_an_app_is_resolved_and_then_run_in_two_recorded_calls() -> None:
    calls, _ = await run(NixAppConfig(app=APP, argv=("-x",), stdin_json=1, timeout_ms=7))
    resolving = {"kind": "resolve_flake_app_v1", "app": APP, "timeout_ms": 7}
    digest = artifact_id_for_json({"namespace": "nix.exec", "request": resolving})
    assert [call.model_dump(mode="json") for call in calls] == [
        {
            "namespace": "nix.exec",
            "request": resolving,
            "fact_key": f"mfm:nix:preflight|state:nix_app.main.resolve|req:{digest}",
        },
        {
            "namespace": "exec",
            "request": {
                "kind": "run_program_v1",
                "program_path": PROGRAM,
                "argv": ["-x"],
                "stdin_json": 1,
                "timeout_ms": 7,
                "env": {},
            },
            "fact_key": None,
        },
    ]


async def test_a_program_of_the_store_is_not_resolved() -> None:
    calls, _ = await run(NixAppConfig(program_path=PROGRAM, numbers="string"))
    assert [call.namespace for call in calls] == ["exec"]
    assert calls[0].request["program_path"] == PROGRAM
    assert calls[0].request["numbers"] == "string"


async def test_the_programs_answer_is_the_runs_output() -> None:
    config = NixAppConfig(app=APP)
    _, context = await run(config)
    manifest = manifest_of(single_op_pipeline(OP, config))
    assert exports(manifest, REGISTRY, context.dump()) == {"result": {"ok": 1}}


async def test_the_result_is_written_under_the_wanted_key_as_well() -> None:
    _, context = await run(NixAppConfig(app=APP, write_result_to="price"))
    dumped = context.dump()
    assert dumped["nix_app.main.price"] == dumped["nix_app.main.result"] == {"ok": 1}


def test_resolving_is_reading_whatever_the_program_does() -> None:
    resolve, program = plan_of(NixAppConfig(app=APP, effect=True, idempotency_key="k")).graph.states
    assert resolve.state.meta().side_effects is SideEffectKind.ReadOnlyIo
    assert program.state.meta().side_effects is SideEffectKind.ApplySideEffect
    assert program.state.meta().idempotency == Idempotency.key("k")
    (_, reading) = plan_of(NixAppConfig(app=APP)).graph.states
    assert reading.state.meta().side_effects is SideEffectKind.ReadOnlyIo


def test_the_program_waits_for_what_it_is() -> None:
    graph = plan_of(NixAppConfig(app=APP)).graph
    assert [(str(edge.from_), str(edge.to)) for edge in graph.edges] == [
        ("nix_app.main.resolve", "nix_app.main.run")
    ]


def test_the_manifest_names_the_nix_that_answers() -> None:
    assert OP.uses_nix


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({}, ""),
        ({"app": APP, "program_path": PROGRAM}, ""),
        ({"app": ""}, "/app"),
        ({"program_path": "/usr/bin/jq"}, "/program_path"),
        ({"program_path": "/nix/store/../../bin/sh"}, "/program_path"),
        ({"program_path": "/nix/storeevil/x"}, "/program_path"),
        ({"app": APP, "write_result_to": "a.b"}, "/write_result_to"),
        ({"app": APP, "write_result_to": "A"}, "/write_result_to"),
        ({"app": APP, "write_result_to": "price\n"}, "/write_result_to"),
        ({"app": APP, "write_result_to": "program_path"}, "/write_result_to"),
        ({"app": APP, "timeout_ms": 0}, "/timeout_ms"),
        ({"app": APP, "idempotency_key": "k"}, "/idempotency_key"),
        ({"app": APP, "shell": True}, "/shell"),
    ],
)
def test_a_wrong_config_is_refused_by_its_place(config: dict[str, Json], pointer: str) -> None:
    with pytest.raises(SettingsFailure) as caught:
        parse_config(OP, config)
    assert caught.value.info.details["pointer"] == pointer


def test_every_option_says_what_it_is_for() -> None:
    fields = {name: info.description for name, info in NixAppConfig.model_fields.items()}
    assert all(fields.values())


def test_a_person_reads_the_answer_alone() -> None:
    assert OP.render_text({"result": {"ok": True}}, 80) == '{\n  "ok": true\n}'
    assert OP.render_text({}, 80) is None
