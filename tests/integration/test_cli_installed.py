"""Ops and transports of other packages, found by entry points; broken ones break nothing else."""

from pathlib import Path

import pytest

from tests.integration.mfm_process import Mfm

MODULE = """
from mfm_ops.machine.ids import OpId, StateId
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.meta import DependencyStrategy, Idempotency, SideEffectKind, StateMeta
from mfm_ops.machine.plan import StateGraph, StateNode
from mfm_ops.machine.state import SnapshotPolicy, StateOutcome
from mfm_ops.machine.transport import TransportReply
from mfm_ops.sdk.operation import OpConfig, OpIo, Operation


class GreetConfig(OpConfig):
    name: str = "world"


class Ask:
    def __init__(self, name):
        self.name = name

    def meta(self):
        return StateMeta(
            tags=(), depends_on=(), depends_on_strategy=DependencyStrategy.Latest,
            side_effects=SideEffectKind.ReadOnlyIo, idempotency=Idempotency.none(),
        )

    async def handle(self, ctx, io, rec):
        answer = await io.call(IoCall(namespace="exec.greeting", request=self.name))
        ctx.write("greeting", answer.response)
        return StateOutcome(snapshot=SnapshotPolicy.Never)


class Greet(Operation[GreetConfig]):
    op_id = OpId("greet")
    op_version = "1"
    summary = "Greet somebody."
    config_model = GreetConfig

    def io(self):
        return OpIo(exports=("greeting",))

    def expand(self, op_path, config, run_config):
        return StateGraph((StateNode(StateId(f"{op_path}.ask"), Ask(config.name)),), ())


class Greeting:
    namespace_group = "exec.greeting"

    def make(self, env):
        return self

    async def call(self, call):
        return TransportReply(f"hello {call.request}", {"transport": "greeting"})


class Exec(Greeting):
    namespace_group = "exec"


class Nameless(Greet):
    op_id = OpId("nameless")
    summary = None


class Leaver(Greet):
    op_id = OpId("leaver")

    def expand(self, op_path, config, run_config):
        raise SystemExit(0)


not_an_op = 3
"""

ENTRY_POINTS = """
[mfm.ops]
greet = greetings:Greet
leaver = greetings:Leaver
misnamed = greetings:Greet
run_program = greetings:Greet
broken = greetings:Missing
gone = no_such_module:Op
number = greetings:not_an_op
leaves = leaving:Op
nameless = greetings:Nameless

[mfm.transports]
greeting = greetings:Greeting
taken = greetings:Exec
number = greetings:not_an_op
"""


@pytest.fixture
def mfm(tmp_path: Path) -> Mfm:
    site = tmp_path / "site"
    (site / "greetings-1.dist-info").mkdir(parents=True)
    (site / "greetings.py").write_text(MODULE)
    (site / "leaving.py").write_text("import sys\nsys.exit()\n")
    metadata = "Metadata-Version: 2.1\nName: greetings\nVersion: 1\n"
    (site / "greetings-1.dist-info" / "METADATA").write_text(metadata)
    (site / "greetings-1.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    mfm = Mfm(tmp_path)
    mfm.environ["PYTHONPATH"] += f":{site}"
    return mfm


def test_an_installed_op_runs_through_an_installed_transport(mfm: Mfm) -> None:
    result = mfm("op", "greet", "--name", "mfm", "--json")
    assert result.data["outputs"] == {"greeting": "hello mfm"}


def test_an_installed_op_gets_its_options_for_nothing(mfm: Mfm) -> None:
    assert "--name TEXT" in mfm("op", "greet", "--help").out
    described = mfm("ops", "show", "greet").out
    assert '"greet.main.ask"' in described


def test_ops_are_listed_with_where_they_come_from(mfm: Mfm) -> None:
    result = mfm("ops", "list", "--json")
    assert {op["op_id"]: op["from"] for op in result.data} == {
        "keystore_list": "mfm",
        "nix_app": "mfm",
        "run_program": "mfm",
        "greet": "greetings",
        "leaver": "greetings",
    }


def test_nobody_can_replace_an_op_of_ours(mfm: Mfm) -> None:
    assert "Greet somebody" not in mfm("op", "run_program", "--help").out


def test_broken_entry_points_are_told_and_break_nothing(mfm: Mfm) -> None:
    report = mfm("doctor", "--json").document["data"]
    warned = {
        check["name"]: check["summary"] for check in report["checks"] if "mfm." in check["name"]
    }
    assert warned.keys() == {
        "mfm.ops misnamed",
        "mfm.ops run_program",
        "mfm.ops broken",
        "mfm.ops gone",
        "mfm.ops number",
        "mfm.ops leaves",
        "mfm.ops nameless",
        "mfm.transports taken",
        "mfm.transports number",
    }
    assert warned["mfm.ops gone"] == "ModuleNotFoundError"
    assert warned["mfm.ops leaves"] == "SystemExit"
    assert warned["mfm.ops nameless"] == "its summary is missing"
    assert report["transports"] == [
        "exec",
        "exec.greeting",
        "local.keystore",
        "machine.child_run",
        "nix.exec",
    ]
    assert "entry point gone of mfm.ops is unusable" in mfm("ops", "list").err


def test_an_op_that_ends_the_process_while_it_expands_is_no_success(mfm: Mfm) -> None:
    result = mfm("op", "leaver", "--json")
    assert (result.code, result.document["error"]["code"]) == (2, "invalid_plan")


def test_an_op_that_cannot_be_expanded_from_placeholders_is_shown_without_states(mfm: Mfm) -> None:
    assert mfm("ops", "show", "leaver", "--json").data["states"] is None


def test_a_built_in_op_is_not_held_up_by_other_packages(mfm: Mfm) -> None:
    result = mfm(*mfm.program("echo", "1"))
    assert (result.code, result.out, result.err) == (0, "1\n", "")
