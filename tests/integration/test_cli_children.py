"""Child runs at the command line: the op of docs/child-runs.md, real programs, real signals."""

import contextlib
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import RunId
from mfm_ops.storage.sqlite import open_sqlite_store
from tests.integration.mfm_process import Mfm, a_long_time, busybox, processes_with

pytestmark = pytest.mark.anyio

GUIDE = Path(__file__).parents[2] / "docs" / "child-runs.md"
ENTRY_POINTS = "[mfm.ops]\nrun_each = run_each:RunEach\n"


@pytest.fixture
def mfm(tmp_path: Path) -> Mfm:
    site = tmp_path / "site"
    (site / "run_each-1.dist-info").mkdir(parents=True)
    block = re.search(
        r"^```python file=run_each.py\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert block
    (site / "run_each.py").write_text(block[1])
    metadata = "Metadata-Version: 2.1\nName: run_each\nVersion: 1\n"
    (site / "run_each-1.dist-info" / "METADATA").write_text(metadata)
    (site / "run_each-1.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    mfm = Mfm(tmp_path)
    mfm.environ["PYTHONPATH"] += f":{site}"
    return mfm


def run_each(*each: str) -> tuple[str, ...]:
    words = [word for argv in each for word in ("--each", argv)]
    return ("op", "run_each", "--program-path", str(busybox()), *words)


async def wait_for(mfm: Mfm, seen: Callable[[dict[RunId, str]], bool]) -> None:
    """Wait until the runs of the store, each as the text of its events, are as wanted."""
    with anyio.fail_after(120):
        while True:
            # It fails as long as the store is not there, or only half made.
            with contextlib.suppress(StorageFailure):
                async with open_sqlite_store(mfm.store, read_only=True) as store:
                    runs = await store.list_runs()
                    texts = {
                        run.run_id: b"".join(await store.read_raw(run.run_id, 1)).decode()
                        for run in runs
                    }
                    if seen(texts):
                        return
            await anyio.sleep(0.02)


def at_work(count: int) -> Callable[[dict[RunId, str]], bool]:
    """Whether so many children have begun a state."""
    return lambda texts: (
        sum("mfm.child_of" in text and "StateEntered" in text for text in texts.values()) == count
    )


def phases(mfm: Mfm, run: str = "last") -> tuple[str, list[str]]:
    """The phases of a run and of its children."""
    status = mfm("run", "status", run, "--json").data
    return status["phase"], [child["phase"] for child in status["children"]]


def test_children_run_and_their_answers_are_gathered(mfm: Mfm) -> None:
    result = mfm(*run_each("echo 1", "echo 2", "echo 2"), "--json")
    assert result.data["outputs"] == {"results": [1, 2, 2]}
    assert len(mfm("run", "list", "--json").data) == 4


def test_status_shows_children_as_a_tree(mfm: Mfm) -> None:
    parent = mfm(*run_each("echo 1", "echo 2"), "--json").data["run_id"]
    status = mfm("run", "status", parent, "--json").data
    assert status["child_of"] is None
    for child in status["children"]:
        assert (child["op_id"], child["phase"]) == ("run_program", "Completed")
        assert (child["state_id"], child["children"]) == ("run_each.main.spawn", [])
        below = mfm("run", "status", child["run_id"], "--json").data
        assert below["child_of"]["run_id"] == parent
        assert below["child_of"]["depth"] == 1
    text = mfm("run", "status", parent).out
    first = status["children"][0]["run_id"]
    assert f"{first}  run_program  Completed  run_each.main.spawn" in text
    assert f"child     of {parent}" in mfm("run", "status", first).out


def test_last_names_what_somebody_started(mfm: Mfm) -> None:
    parent = mfm(*run_each(*["echo 1"] * 20), "--json").data["run_id"]
    assert mfm("run", "status", "last", "--json").data["run_id"] == parent


def test_a_failed_child_fails_its_parent_and_is_named(mfm: Mfm) -> None:
    result = mfm(*run_each("echo 1", "false"), "--json")
    assert (result.code, result.error["code"]) == (1, "child_run_failed")
    children = mfm("run", "status", "last", "--json").data["children"]
    failed = next(child for child in children if child["phase"] == "Failed")
    details = result.error["details"]
    assert details["child_run_id"] == failed["run_id"]
    assert details["child_code"] == "exec_failed"


def test_a_run_with_children_replays(mfm: Mfm) -> None:
    mfm(*run_each("echo 1", "echo 2"))
    assert mfm("run", "replay", "last").code == 0
    assert mfm("run", "replay", mfm("run", "list", "--json").data[0]["run_id"]).code == 0


def test_a_run_moves_to_another_store_with_its_children(mfm: Mfm) -> None:
    mfm(*run_each("echo 1", "echo 2"))
    mfm("run", "export", "last", "-o", "family.tar")
    elsewhere = {"MFM_STORE": str(mfm.directory / "other.sqlite")}
    assert mfm("run", "import", "family.tar", environ=elsewhere).code == 0
    here, there = (
        mfm("run", "status", "last", "--json", environ=where).data for where in ({}, elsewhere)
    )
    assert here == there
    assert mfm("store", "verify", environ=elsewhere).code == 0


async def test_cancelling_a_run_cancels_its_children_and_kills_their_programs(mfm: Mfm) -> None:
    markers = [a_long_time(), a_long_time()]
    with mfm.started(*run_each(*(f"sleep {marker}" for marker in markers))) as process:
        await wait_for(mfm, at_work(2))
        assert mfm("run", "cancel", "last").code == 0
        process.communicate(timeout=120)
    assert phases(mfm) == ("Cancelled", ["Cancelled", "Cancelled"])
    assert [processes_with(marker) for marker in markers] == [[], []]


async def test_a_cancelled_child_fails_the_state_that_waits_for_it(mfm: Mfm) -> None:
    with mfm.started(*run_each("sleep 4201.25"), "--json") as process:
        await wait_for(mfm, at_work(1))
        child = mfm("run", "status", "last", "--json").data["children"][0]["run_id"]
        assert mfm("run", "cancel", child).code == 0
        out, _ = process.communicate(timeout=120)
    assert json.loads(out)["error"]["code"] == "child_run_cancelled"
    assert phases(mfm) == ("Failed", ["Cancelled"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_an_interrupted_run_goes_on_with_its_children(mfm: Mfm, number: int) -> None:
    marker = a_long_time()
    with mfm.started(*run_each("echo 1", f"sleep {marker}")) as process:
        await wait_for(
            mfm,
            lambda texts: (
                at_work(2)(texts) and sum("RunCompleted" in t for t in texts.values()) == 1
            ),
        )
        process.send_signal(number)
        process.communicate(timeout=120)
    status = mfm("run", "status", "last", "--json").data
    assert [child["phase"] for child in status["children"]] == ["Completed", "Running"]
    assert [child["activity"] for child in status["children"]] == [None, "interrupted"]
    with mfm.started("run", "resume", "last", "--json") as process:
        await wait_for(
            mfm, lambda texts: any(text.count('"StateEntered"') == 2 for text in texts.values())
        )
        second = mfm("run", "status", "last", "--json").data["children"][1]["run_id"]
        assert mfm("run", "cancel", second).code == 0
        out, _ = process.communicate(timeout=120)
    assert json.loads(out)["error"]["details"]["child_run_id"] == second
    assert phases(mfm) == ("Failed", ["Completed", "Cancelled"])
    assert processes_with(marker) == []


async def test_a_dead_run_is_cancelled_with_its_children(mfm: Mfm) -> None:
    with mfm.started(*run_each("sleep 4401.25")) as process:
        await wait_for(mfm, at_work(1))
        process.kill()
        process.communicate(timeout=120)
    assert mfm("run", "cancel", "last").code == 0
    assert phases(mfm) == ("Cancelled", ["Cancelled"])


async def test_a_dead_run_whose_op_is_gone_is_cancelled_with_its_children(mfm: Mfm) -> None:
    with mfm.started(*run_each("sleep 4501.25")) as process:
        await wait_for(mfm, at_work(1))
        process.kill()
        process.communicate(timeout=120)
    (mfm.directory / "site" / "run_each-1.dist-info" / "entry_points.txt").write_text("")
    assert mfm("run", "cancel", "last").code == 0
    assert phases(mfm) == ("Cancelled", ["Cancelled"])


async def test_a_run_says_which_child_waits_for_somebody(mfm: Mfm) -> None:
    with mfm.started(*run_each("sleep 4601.25"), "--effect") as process:
        await wait_for(mfm, lambda texts: any("mfm.io_intent" in text for text in texts.values()))
        process.kill()
        process.communicate(timeout=120)
    result = mfm("run", "resume", "last", "--json")
    assert (result.code, result.error["code"]) == (5, "effect_unknown")
    assert "run_program.main.run" in result.error["details"]["key"]
    status = mfm("run", "status", "last", "--json").data
    (child,) = status["parked_children"]
    text = mfm("run", "status", "last").out
    assert "phase     Parked" in text
    assert f"mfm run status {child}" in text
    assert [line.split()[-1] for line in mfm("run", "list").out.splitlines()[1:]] == ["Parked"] * 2
    resolved = mfm(
        "run", "resolve", child, "run", "--as", "completed", "--result", "7", "--why", "seen"
    )
    assert resolved.code == 0, resolved
    assert mfm("run", "resume", "last", "--json").data["outputs"] == {"results": [7]}


def progress_of(result: Any) -> list[str]:
    return [line for line in result.err.splitlines() if line.startswith("ok ")]


def test_progress_shows_the_states_of_children_too(mfm: Mfm) -> None:
    lines = progress_of(mfm(*run_each("echo 1", "echo 2"), "--progress"))
    assert sum("run_program.main.run" in line for line in lines) == 2
    assert sum("run_each.main" in line for line in lines) == 2
