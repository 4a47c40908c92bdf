"""Recorded runs are replayed for ever: what an older mfm wrote, this one reproduces.

`tests/histories/` holds them, with the ops that they are runs of; `make histories` adds to them.
"""

import itertools
import time
from pathlib import Path

import pytest

from mfm_ops.machine.context import DynContext
from mfm_ops.machine.ids import ContextKey
from mfm_ops.machine.io import IoProvider
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.runtime.verdict_model import Divergence, DivergenceKind
from mfm_ops.sdk.planner import OpRegistry
from tests.histories import files, record
from tests.histories.ops import CHAIN, OPS, SCENARIOS, Handler, Recorded, Step

pytestmark = pytest.mark.anyio

FOLDERS = sorted(path.parent for path in files.FOLDER.parent.glob(f"*/*/{files.EVENTS}"))


def named(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def test_no_recorded_file_was_changed_added_or_lost() -> None:
    assert files.files() == files.digests()


def test_every_scenario_is_recorded_and_every_record_is_of_a_scenario() -> None:
    assert {folder.name for folder in FOLDERS} == SCENARIOS.keys()


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
async def test_a_recorded_run_gets_its_verdict(folder: Path) -> None:
    scenario = SCENARIOS[folder.name]
    verdict = await files.verdict_on(folder, OPS)
    assert verdict.divergences == ()
    assert (verdict.verdict, verdict.up_to) == (scenario.verdict, scenario.up_to)
    results = tuple(one.result.value for one in verdict.states)
    assert results == (scenario.results or ("reproduced",) * len(results))


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
async def test_a_recorded_event_is_stored_in_the_same_bytes_today(folder: Path) -> None:
    store, run_id = await files.load(folder)
    assert await store.read_raw(run_id, 1) == files.events_of(folder)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_run_of_today_gets_the_verdict_of_the_recorded_one(
    name: str, tmp_path: Path
) -> None:
    await record.record(name, tmp_path / name)
    scenario = SCENARIOS[name]
    verdict = await files.verdict_on(tmp_path / name, OPS)
    assert (verdict.verdict, verdict.up_to) == (scenario.verdict, scenario.up_to)


async def test_what_was_recorded_is_never_written_again(tmp_path: Path) -> None:
    await record.record("chain", tmp_path / "chain")
    with pytest.raises(FileExistsError):
        await record.record("chain", tmp_path / "chain")


# Planted faults


counter = itertools.count(1)


async def tells_time(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    ctx.write(ContextKey("total"), time.time_ns() // 1000)


async def counts(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    ctx.write(ContextKey("total"), 1000 + next(counter))


async def lists_a_set(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    # In one process a set of ids is as good as a set of texts in two.
    ctx.write(ContextKey("total"), list({id(object()), 7}))


async def lists_a_dict(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    text = dict.fromkeys(("b", "a") if next(counter) else ())
    ctx.write(ContextKey("total"), ",".join(text))


async def divergence(handler: Handler) -> Divergence:
    """The first divergence of the recorded chain with another second state."""
    planted = Recorded("chain", {**CHAIN, "second": Step(handler)})
    verdict = await files.verdict_on(files.FOLDER / "chain", OpRegistry([planted]))
    assert verdict.verdict == "diverged"
    assert [one.result.value for one in verdict.states] == ["reproduced", "diverged", "reproduced"]
    return verdict.divergences[0]


@pytest.mark.parametrize("handler", [tells_time, counts, lists_a_set, lists_a_dict])
async def test_a_planted_fault_is_named_by_state_and_key(handler: Handler) -> None:
    found = await divergence(handler)
    assert found.state_id == "chain.main.second"
    assert found.kind is DivergenceKind.context
    # The keys in their order: `scratch` is no longer deleted, and `total` is another.
    assert found.key == "chain.main.scratch"
    assert any(line.startswith("- /chain.main.total: 6") for line in found.diff)
    assert any(line.startswith("+ /chain.main.total: ") for line in found.diff)
