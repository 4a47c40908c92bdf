"""`mfm run replay`: the verdict, its exit codes, and that nothing but the store is needed."""

import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.integration.mfm_process import ROOT, Mfm, busybox
from tests.support import CANARY

MODULE = """
import os, sys, time

from mfm_ops.machine.ids import OpId, StateId
from mfm_ops.machine.meta import DependencyStrategy, Idempotency, SideEffectKind, StateMeta
from mfm_ops.machine.plan import DependencyEdge, StateGraph, StateNode
from mfm_ops.machine.state import SnapshotPolicy, StateOutcome
from mfm_ops.sdk.operation import OpConfig, Operation


def steady(ctx):
    ctx.write("steady", 1)

def clock(ctx):
    ctx.write("made_at", time.time_ns() // 1000)

def order(ctx):
    ctx.write("names", list({f"name{number}" for number in range(20)}))

def surprise(ctx):
    ctx.write("note", os.environ.get("SURPRISE", "none"))

def endless(ctx):
    if "ENDLESS" in os.environ:
        print("endless", file=sys.stderr, flush=True)
        while True:
            pass

def fail(ctx):
    raise ValueError


class Does:
    def __init__(self, act):
        self.act = act

    def meta(self):
        return StateMeta(
            tags=(), depends_on=(), depends_on_strategy=DependencyStrategy.Latest,
            side_effects=SideEffectKind.Pure, idempotency=Idempotency.none(),
        )

    async def handle(self, ctx, io, rec):
        self.act(ctx)
        return StateOutcome(snapshot=SnapshotPolicy.Never)


class PlantedConfig(OpConfig):
    fault: str = "steady"


class Planted(Operation[PlantedConfig]):
    op_id = OpId("planted")
    op_version = os.environ.get("PLANTED_VERSION", "1")
    summary = "Three states; the second one may have a fault."
    config_model = PlantedConfig

    def expand(self, op_path, config, run_config):
        ids = [StateId(f"{op_path}.{name}") for name in ("before", "planted", "after")]
        acts = [steady, globals()[config.fault], steady]
        if "PLANTED_MORE" in os.environ:
            ids.append(StateId(f"{op_path}.more"))
            acts.append(steady)
        return StateGraph(
            tuple(StateNode(*pair) for pair in zip(ids, map(Does, acts))),
            tuple(DependencyEdge.between(*pair) for pair in zip(ids, ids[1:])),
        )
"""


def blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "replay.md").read_text()
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def without_what_changes(text: str) -> str:
    return re.sub(r"\b([0-9a-f]{64}|[0-9]{13})\b", "…", text)


def installed(directory: Path, name: str, source: str) -> Mfm:
    """mfm with a package that offers one op, `name`."""
    site = directory / "site"
    about = site / f"{name}-1.dist-info"
    about.mkdir(parents=True)
    (site / f"{name}.py").write_text(source)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[mfm.ops]\n{name} = {name}:{name.title()}\n")
    mfm = Mfm(directory)
    mfm.environ["PYTHONPATH"] += f":{site}"
    return mfm


@pytest.fixture
def mfm(tmp_path: Path) -> Mfm:
    return installed(tmp_path, "planted", MODULE)


def test_the_examples_of_the_guide_print_what_it_says(tmp_path: Path) -> None:
    (source,) = blocks("python")
    mfm = installed(tmp_path, "report", source)
    listed = ("op", "keystore_list", "--keystore", ROOT / "examples" / "keystore")
    for first, said in zip((listed, ("op", "report")), blocks("console"), strict=True):
        assert mfm(*first).code == 0
        result = mfm("run", "replay", "last")
        _, _, expected = said.partition("$ mfm run replay last\n")
        assert without_what_changes(result.out) == without_what_changes(expected)


def test_a_run_is_reproduced(mfm: Mfm) -> None:
    assert mfm("op", "planted").code == 0
    result = mfm("run", "replay", "last")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].split() == ["STATE", "ATTEMPT", "RECORDED", "REPLAY", "REASON"]
    assert lines[2].split() == ["planted.main.planted", "0", "completed", "reproduced"]
    assert lines[-1] == "reproduced (3 of 3 states)"


def test_the_verdict_is_one_json_document(mfm: Mfm) -> None:
    mfm("op", "planted")
    data = mfm("run", "replay", "last", "--json").data
    assert (data["verdict"], data["up_to"], data["divergences"]) == ("reproduced", None, [])
    assert [state["result"] for state in data["states"]] == ["reproduced"] * 3


def test_a_replay_changes_no_byte_of_the_store(mfm: Mfm) -> None:
    mfm("op", "planted", "--fault", "clock")
    before = mfm.store.read_bytes()
    assert mfm("run", "replay", "last").code == 4
    assert mfm.store.read_bytes() == before
    # A reader of SQLite may leave its log behind; there is nothing in it.
    assert not [p for p in mfm.directory.glob("store.sqlite-wal") if p.stat().st_size]


def test_a_clock_is_named_by_state_and_key(mfm: Mfm) -> None:
    mfm("op", "planted", "--fault", "clock")
    result = mfm("run", "replay", "last", "--json")
    assert result.code == 4
    assert result.error["code"] == "replay_diverged"
    details = result.error["details"]
    assert details["state_id"] == "planted.main.planted"
    assert (details["kind"], details["key"]) == ("context", "planted.main.made_at")
    assert len({details["recorded"], details["replayed"]}) == 2
    assert details["diff"][0].startswith("- /planted.main.made_at: ")
    assert details["verdict"]["divergences"][0]["key"] == details["key"]


def test_the_order_of_a_set_is_named_by_state_and_key(mfm: Mfm) -> None:
    mfm("op", "planted", "--fault", "order", environ={"PYTHONHASHSEED": "1"})
    assert mfm("run", "replay", "last", environ={"PYTHONHASHSEED": "1"}).code == 0
    result = mfm("run", "replay", "last", environ={"PYTHONHASHSEED": "2"})
    assert result.code == 4
    assert "first divergence at planted.main.planted: context planted.main.names" in result.out
    assert "the same 20 elements in another order" in result.out
    assert result.out.splitlines()[-1] == "diverged (2 of 3 states reproduced)"
    assert "error[replay_diverged]" in result.err


def test_a_secret_that_only_the_replay_made_is_not_printed(mfm: Mfm) -> None:
    mfm("op", "planted", "--fault", "surprise")
    for arguments in ((), ("--json",)):
        result = mfm("run", "replay", "last", *arguments, environ={"SURPRISE": CANARY})
        assert result.code == 4
        assert CANARY not in result.out + result.err
        assert "secrets_detected" in result.out


def test_a_failed_run_is_reproduced_up_to_its_failure(mfm: Mfm) -> None:
    assert mfm("op", "planted", "--fault", "fail").code == 1
    result = mfm("run", "replay", "last", "--log-level", "error")
    assert result.code == 0
    assert result.out.splitlines()[-1] == "reproduced up to planted.main.planted (2 of 2 states)"
    assert "state_panicked" in result.out


def test_a_program_that_ran_is_not_needed_again(mfm: Mfm, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "busybox"
    program.parent.mkdir()
    shutil.copy(busybox(), program)
    ran = mfm(
        *("op", "run_program", "--program-path", program, "--argv", "echo", "--argv", "[1]"),
        environ={"MFM_EXEC_ALLOW_PREFIXES": str(program.parent)},
    )
    assert (ran.code, ran.out) == (0, "[\n  1\n]\n")
    program.unlink()
    nowhere = {"PATH": str(tmp_path / "none"), "MFM_EXEC_ALLOW_PREFIXES": str(tmp_path / "none")}
    assert mfm("run", "replay", "last", environ=nowhere).code == 0


def test_a_run_is_reproduced_on_another_machine_from_an_export(mfm: Mfm, tmp_path: Path) -> None:
    assert mfm(*mfm.program("echo", "[1]")).code == 0
    assert mfm("run", "export", "last", "-o", "run.mfm").code == 0
    elsewhere = {
        "MFM_STORE": str(tmp_path / "other.sqlite"),
        "PATH": str(tmp_path / "none"),
        "MFM_EXEC_ALLOW_PREFIXES": str(tmp_path / "none"),
    }
    assert mfm("run", "import", "run.mfm", environ=elsewhere).code == 0
    result = mfm("run", "replay", "last", environ=elsewhere)
    assert (result.code, result.out.splitlines()[-1]) == (0, "reproduced (1 of 1 states)")


def test_a_call_that_failed_cannot_be_judged(mfm: Mfm) -> None:
    assert mfm(*mfm.program("false")).code == 1
    data = mfm("run", "replay", "last", "--json").data
    assert (data["verdict"], data["up_to"]) == ("reproduced_up_to", "run_program.main.run")
    assert data["states"][0]["result"] == "not_replayed"
    assert data["states"][0]["reason"] == "exec_failed"


@pytest.mark.parametrize("changed", ["PLANTED_VERSION", "PLANTED_MORE"])
def test_another_version_or_plan_of_the_op_is_a_divergence(mfm: Mfm, changed: str) -> None:
    mfm("op", "planted")
    result = mfm("run", "replay", "last", "--json", environ={changed: "2"})
    assert result.code == 4
    assert result.error["code"] == "plan_changed"


def test_an_op_that_is_not_installed_is_the_callers_to_install(mfm: Mfm) -> None:
    mfm("op", "planted")
    result = mfm("run", "replay", "last", "--json", environ={"PYTHONPATH": str(ROOT)})
    assert (result.code, result.error["code"]) == (2, "op_unknown")


def test_an_unknown_run_is_not_replayed(mfm: Mfm) -> None:
    mfm("op", "planted")
    result = mfm("run", "replay", "ffffffff", "--json")
    assert (result.code, result.error["code"]) == (3, "run_not_found")


def test_an_endless_handler_is_ended_and_named(mfm: Mfm) -> None:
    mfm("op", "planted", "--fault", "endless")
    # The first may be up on a slow machine before the handler begins.
    for timeout_s in ("0.5", "5", "30"):
        result = mfm(
            *("run", "replay", "last", "--json", "--timeout", timeout_s), environ={"ENDLESS": "1"}
        )
        assert (result.code, result.document["error"]["code"]) == (4, "replay_timeout")
        if "endless" in result.err:
            break
    assert result.document["error"]["details"]["state_id"] == "planted.main.planted"


def test_no_time_at_all_is_up_before_the_first_state(mfm: Mfm) -> None:
    mfm("op", "planted")
    result = mfm("run", "replay", "last", "--json", "--timeout", "1e-9")
    assert (result.code, result.error["code"]) == (4, "replay_timeout")


def test_ctrl_c_ends_even_a_handler_that_never_waits(mfm: Mfm) -> None:
    mfm("op", "planted", "--fault", "endless")
    with mfm.started("run", "replay", "last", environ={"ENDLESS": "1"}) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "endless\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
