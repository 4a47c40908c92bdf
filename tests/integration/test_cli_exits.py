"""Ops that call `sys.exit()`: the exit code is mfm's, and 0 means that the run is done."""

from pathlib import Path

import pytest

from tests.integration.mfm_process import ROOT, Mfm

MODULE = """
import asyncio
import os
import sys

from mfm_ops.machine.ids import OpId, StateId
from mfm_ops.machine.meta import DependencyStrategy, Idempotency, SideEffectKind, StateMeta
from mfm_ops.machine.plan import StateGraph, StateNode
from mfm_ops.machine.state import SnapshotPolicy, StateOutcome
from mfm_ops.sdk.operation import OpConfig, Operation

META = StateMeta(tags=(), depends_on=(), depends_on_strategy=DependencyStrategy.Latest,
                 side_effects=SideEffectKind.Pure, idempotency=Idempotency.none())
WHERE = os.environ.get("LEAVES_IN", "")


async def leave():
    sys.exit(0)


class State:
    def meta(self):
        return META

    async def handle(self, ctx, io, rec):
        if WHERE == "handler":
            sys.exit(0)
        if WHERE == "task":
            await asyncio.create_task(leave())
        return StateOutcome(snapshot=SnapshotPolicy.OnSuccess)


class Leaver(Operation):
    op_id = OpId("leaver")
    op_version = "1"
    summary = "Leaves where it is told to."
    config_model = OpConfig

    def expand(self, op_path, config, run_config):
        if WHERE == "expand":
            sys.exit(0)
        return StateGraph((StateNode(StateId(f"{op_path}.only"), State()),), ())
"""


@pytest.fixture
def mfm(tmp_path: Path) -> Mfm:
    site = tmp_path / "site"
    (site / "leaver-1.dist-info").mkdir(parents=True)
    (site / "leaver_op.py").write_text(MODULE)
    metadata = "Metadata-Version: 2.1\nName: leaver\nVersion: 1\n"
    (site / "leaver-1.dist-info" / "METADATA").write_text(metadata)
    (site / "leaver-1.dist-info" / "entry_points.txt").write_text(
        "[mfm.ops]\nleaver = leaver_op:Leaver\n"
    )
    mfm = Mfm(tmp_path)
    mfm.environ["PYTHONPATH"] = f"{ROOT}:{site}"
    return mfm


@pytest.mark.parametrize("options", [(), ("--parallel", "2")])
@pytest.mark.parametrize("where", ["handler", "task"])
def test_an_exit_in_a_handler_fails_the_run(mfm: Mfm, where: str, options: tuple[str, ...]) -> None:
    mfm.environ["LEAVES_IN"] = where
    done = mfm("op", "leaver", "--json", *options)
    assert (done.code, done.document["error"]["code"]) == (1, "state_panicked"), done
    assert done.document["error"]["details"]["exception"] == "SystemExit"
    assert mfm("run", "status", "last", "--json").data["phase"] == "Failed"


def test_an_exit_while_an_op_expands_is_its_authors_mistake(mfm: Mfm) -> None:
    mfm.environ["LEAVES_IN"] = "expand"
    done = mfm("op", "leaver", "--json")
    assert (done.code, done.document["error"]["code"]) == (2, "invalid_plan"), done


def test_an_exit_in_a_replay_is_a_divergence(mfm: Mfm) -> None:
    assert mfm("op", "leaver").code == 0
    mfm.environ["LEAVES_IN"] = "task"
    done = mfm("run", "replay", "last", "--json")
    assert (done.code, done.document["error"]["code"]) == (4, "replay_diverged"), done
