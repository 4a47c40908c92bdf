"""`mfm run cancel`, `resolve`, `fork` and the options of parallel runs, on real programs."""

import json
import signal
from pathlib import Path

import pytest

from tests.integration.mfm_process import Mfm, a_long_time, entered, processes_with, wait_for

pytestmark = pytest.mark.anyio


@pytest.fixture
def mfm(tmp_path: Path) -> Mfm:
    return Mfm(tmp_path)


async def test_a_run_is_cancelled_from_another_process_and_its_programs_are_dead(mfm: Mfm) -> None:
    marker = a_long_time()
    with mfm.started(*mfm.program("sleep", marker), "--json") as process:
        run_id = await wait_for(mfm, entered)
        done = mfm("run", "cancel", run_id, "--why", "not needed", "--json")
        assert done.data == {"run_id": run_id, "phase": "Cancelled"}
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 6
    assert json.loads(out)["error"]["code"] == "run_cancelled"
    assert processes_with(marker) == []
    events = mfm("run", "events", run_id, "--json").data
    (request,) = [e for e in events if "mfm.cancel_requested" in str(e)]
    assert request["event"]["Domain"]["payload"]["why"] == "not needed"
    again = mfm("run", "cancel", run_id, "--json")
    assert (again.code, again.data["phase"]) == (0, "Cancelled")


async def test_a_killed_run_is_cancelled_without_its_driver(mfm: Mfm) -> None:
    with mfm.started(*mfm.program("sleep", "4100.25")) as process:
        run_id = await wait_for(mfm, entered)
        process.kill()
        process.communicate(timeout=120)
    assert mfm("run", "cancel", run_id).code == 0
    status = mfm("run", "status", run_id, "--json").data
    assert status["phase"] == "Cancelled"
    assert status["states"][0]["error"]["code"] == "run_cancelled"


async def test_a_stopped_driver_is_cancelled_by_force_and_does_no_harm_when_it_wakes_up(
    mfm: Mfm,
) -> None:
    marker = a_long_time()
    with mfm.started(*mfm.program("sleep", marker)) as process:
        run_id = await wait_for(mfm, entered)
        process.send_signal(signal.SIGSTOP)
        waited = mfm("run", "cancel", run_id, "--wait", "0.2", "--json")
        assert (waited.code, waited.error["code"]) == (3, "run_busy")
        assert waited.error["details"]["pid"] == process.pid
        assert "--force" in waited.error["hint"]
        assert mfm("run", "cancel", run_id, "--force").code == 0
        events = mfm("run", "events", run_id, "--json").data
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=120)
    assert "run_fenced" in err
    assert processes_with(marker) == []
    assert mfm("run", "events", run_id, "--json").data == events


def test_what_is_over_cannot_be_cancelled(mfm: Mfm) -> None:
    run_id = mfm(*mfm.program("echo", "1"), "--json").data["run_id"]
    result = mfm("run", "cancel", run_id, "--json")
    assert (result.code, result.error["code"]) == (2, "run_over")


async def parked(mfm: Mfm) -> str:
    """A run whose effect was begun, and whose driver was killed."""
    with mfm.started(*mfm.program("sleep", "4300.25"), "--effect") as process:
        run_id = await wait_for(mfm, lambda events: "mfm.io_intent" in str(events))
        process.kill()
        process.communicate(timeout=120)
    assert mfm("run", "resume", run_id).code == 5
    return run_id


async def test_status_says_what_is_unknown_what_was_sent_and_what_to_do(mfm: Mfm) -> None:
    run_id = await parked(mfm)
    (effect,) = mfm("run", "status", run_id, "--json").data["unknown_effects"]
    assert effect["state_id"] == "run_program.main.run"
    assert effect["namespace"] == "exec"
    assert effect["request"]["argv"] == ["sleep", "4300.25"]
    shown = mfm("run", "status", run_id).out
    assert '"argv":["sleep","4300.25"]' in shown
    assert f"mfm run resolve {run_id} STATE" in shown


async def test_a_resolved_effect_lets_the_run_go_on(mfm: Mfm) -> None:
    run_id = await parked(mfm)
    resolved = mfm("run", "resolve", run_id, "run", "--as", "completed",
                   "--result", '{"slept": true}', "--why", "I was there", "--json")  # fmt: skip
    assert resolved.data["waits_for"] == []
    done = mfm("run", "resume", run_id, "--json").data
    assert done["outputs"]["result"] == {"slept": True}
    (fact,) = mfm("run", "facts", run_id, "--json").data["facts"]
    assert fact["meta"]["source"] == "resolved"


async def test_an_effect_resolved_as_failed_fails_the_run_and_points_to_fork(mfm: Mfm) -> None:
    run_id = await parked(mfm)
    assert mfm("run", "resolve", run_id, "run", "--as", "failed", "--why", "no trace").code == 0
    failed = mfm("run", "resume", run_id, "--json")
    assert (failed.code, failed.error["code"]) == (1, "effect_failed")
    assert "mfm run fork" in failed.error["hint"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("run", "--as", "completed", "--why", "x"), "usage"),
        (("run", "--as", "retry", "--result", "1", "--why", "x"), "usage"),
        (("run", "--as", "completed", "--result", "{", "--why", "x"), "usage"),
        (("run", "--as", "retry"), "usage"),
        (("nowhere", "--as", "retry", "--why", "x"), "usage"),
        (("run", "--as", "retry", "--why", "x", "--key", "other"), "effect_not_unknown"),
    ],
)
async def test_a_resolution_that_makes_no_sense_changes_nothing(
    mfm: Mfm, arguments: tuple[str, ...], code: str
) -> None:
    run_id = await parked(mfm)
    before = mfm("run", "events", run_id, "--json").data
    refused = mfm("run", "resolve", run_id, *arguments, "--json")
    assert (refused.code, refused.error["code"]) == (2, code)
    assert mfm("run", "events", run_id, "--json").data == before


def test_a_failed_run_goes_on_in_a_fork(mfm: Mfm) -> None:
    failed = mfm(*mfm.program("false"), "--json")
    assert failed.code == 1
    source = failed.error["details"]["run_id"]
    fork = mfm("run", "fork", source, "--json")
    assert (fork.code, fork.error["code"]) == (1, "exec_failed")
    status = mfm("run", "status", "last", "--json").data
    assert status["forked_from"] == {"run_id": source, "state_id": "run_program.main.run"}
    assert f"forked    from {source}" in mfm("run", "status", "last").out


@pytest.mark.parametrize(
    "arguments",
    [("--set", "x"), ("--set", "=1"), ("--set", "a={"), ("--set", "a=1", "--set", "a=2"),
     ("--from", "nowhere")],
)  # fmt: skip
def test_a_fork_that_makes_no_sense_is_a_usage_error(mfm: Mfm, arguments: tuple[str, ...]) -> None:
    mfm(*mfm.program("false"))
    refused = mfm("run", "fork", "last", *arguments, "--json")
    assert (refused.code, refused.error["code"]) == (2, "usage")
    assert len(mfm("run", "list", "--json").data) == 1


def test_a_completed_run_needs_to_be_told_where_to_fork(mfm: Mfm) -> None:
    source = mfm(*mfm.program("echo", "1"), "--json").data["run_id"]
    refused = mfm("run", "fork", source, "--json")
    assert (refused.code, refused.error["code"]) == (2, "fork_invalid")
    unknown = mfm("run", "fork", source, "--from", "run", "--set", "typo=1", "--json")
    assert unknown.error["details"]["reason"] == "unknown_key"
    done = mfm("run", "fork", source, "--from", "run", "--json").data
    assert done["outputs"]["result"] == 1
    assert done["run_id"] != source


def test_run_options_for_parallel_runs_stand_in_the_manifest(mfm: Mfm) -> None:
    run_id = mfm(*mfm.program("echo", "1"), "--parallel", "4", "--finish-running",
                 "--deadline-ms", "60000", "--state-deadline-ms", "30000", "--json",
                 ).data["run_id"]  # fmt: skip
    config = mfm("run", "manifest", run_id, "--json").data["manifest"]["run_config"]
    assert config["execution_mode"] == {"FanOutJoin": {"max_concurrency": 4}}
    assert config["on_state_failure"] == "FinishRunning"
    assert (config["run_deadline_ms"], config["state_deadline_ms"]) == (60000, 30000)


def test_a_deadline_ends_programs(mfm: Mfm) -> None:
    marker = a_long_time()
    late = mfm(*mfm.program("sleep", marker), "--deadline-ms", "300", "--json")
    assert (late.code, late.error["code"]) == (1, "run_deadline_exceeded")
    late = mfm(*mfm.program("sleep", marker), "--state-deadline-ms", "300", "--max-attempts", "2",
               "--json")  # fmt: skip
    assert (late.code, late.error["code"]) == (1, "state_deadline_exceeded")
    assert processes_with(marker) == []
    assert mfm("run", "status", "last", "--json").data["states"][0]["attempts"] == 2
