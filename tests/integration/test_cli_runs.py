"""The life of a run at the command line: started, looked at, interrupted, gone on with."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from mfm_ops.machine.events import DomainEvent, Event, EventEnvelope
from mfm_ops.machine.ids import RunId
from mfm_ops.storage.sqlite import open_sqlite_store
from tests.integration.mfm_process import (
    COMMAND,
    Mfm,
    a_long_time,
    entered,
    on_terminal,
    processes_with,
    wait_for,
)

pytestmark = pytest.mark.anyio

HELLO = '{"hello":"w\u00f6rld"}'


@pytest.fixture
def mfm(tmp_path: Path) -> Mfm:
    return Mfm(tmp_path)


@pytest.fixture
def finished(mfm: Mfm) -> dict[str, Any]:
    """A run that completed, as `--json` told it."""
    data = mfm(*mfm.program("echo", HELLO), "--json").data
    assert isinstance(data, dict)
    return data


def test_a_programs_answer_is_the_runs_output(mfm: Mfm) -> None:
    result = mfm(*mfm.program("echo", HELLO))
    assert (result.code, json.loads(result.out), result.err) == (0, json.loads(HELLO), "")


@pytest.mark.parametrize("sandbox", ["bubblewrap", "off"])
def test_whoever_ignores_the_end_of_children_does_not_hand_it_on(mfm: Mfm, sandbox: str) -> None:
    # A shell takes care of it by itself, as most programs do; whoever does not has it so.
    script = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    program = (*mfm.program("echo", HELLO), "--effect", "--timeout-ms", "3000")
    done = subprocess.run(
        [sys.executable, "-c", script, *COMMAND, *program],
        env={**mfm.environ, "MFM_EXEC_SANDBOX": sandbox},
        cwd=mfm.directory,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, json.loads(done.stdout)) == (0, json.loads(HELLO))


def test_json_tells_the_run_and_its_outputs(finished: dict[str, Any]) -> None:
    assert finished["outputs"] == {"result": json.loads(HELLO)}
    assert (finished["op_id"], finished["phase"]) == ("run_program", "Completed")
    assert finished["run_id"] == str(RunId(finished["run_id"]))
    assert len(finished["manifest_id"]) == len(finished["final_snapshot_id"]) == 64


def test_status_tells_phase_states_and_facts(mfm: Mfm, finished: dict[str, Any]) -> None:
    status = mfm("run", "status", "last", "--json").data
    assert status["run_id"] == finished["run_id"]
    assert (status["phase"], status["parked"], status["driver"]) == ("Completed", False, None)
    assert (status["facts"], status["failure"]) == (1, None)
    (state,) = status["states"]
    assert (state["state_id"], state["status"], state["attempts"]) == (
        "run_program.main.run",
        "completed",
        1,
    )
    text = mfm("run", "status", "last").out
    assert "phase     Completed" in text
    assert "run_program.main.run  completed  1" in text


def test_a_run_is_named_by_id_prefix_or_last(mfm: Mfm, finished: dict[str, Any]) -> None:
    run_id = finished["run_id"]
    for name in (run_id, run_id[:8], run_id.upper(), "last"):
        assert mfm("run", "status", name, "--json").data["run_id"] == run_id
    for name in ("", "zzz", "00000000-0000-4000-8000-000000000000", "last~1"):
        error = mfm("run", "status", name, "--json").error
        assert error["code"] == "run_not_found"


def test_an_ambiguous_prefix_shows_what_it_could_mean(mfm: Mfm) -> None:
    first: dict[str, str] = {}
    while True:
        run_id = mfm(*mfm.program("echo", "1"), "--json").data["run_id"]
        other = first.setdefault(run_id[0], run_id)
        if other != run_id:
            break
    result = mfm("run", "status", run_id[0], "--json")
    assert result.code == 2
    assert result.error["code"] == "run_id_ambiguous"
    assert {run_id, other} <= set(result.error["details"]["matches"])


def test_runs_are_listed_newest_first(mfm: Mfm, finished: dict[str, Any]) -> None:
    newer = mfm(*mfm.program("echo", "1"), "--json").data["run_id"]
    runs = mfm("run", "list", "--json").data
    assert [run["run_id"] for run in runs] == [newer, finished["run_id"]]
    assert [run["run_id"] for run in mfm("run", "list", "--limit", "1", "--json").data] == [newer]
    assert mfm("run", "list").out.splitlines()[1].startswith(newer)


def test_a_listed_id_names_its_run_on_every_terminal(mfm: Mfm, finished: dict[str, Any]) -> None:
    for columns, length in ((80, 13), (100, 36)):
        line = on_terminal(mfm, "run", "list", columns=columns).splitlines()[1]
        assert len(line) <= columns
        assert line.endswith("  Completed")
        shown = line.split()[0]
        assert shown == finished["run_id"][:length]
        assert mfm("run", "status", shown, "--json").data["run_id"] == finished["run_id"]


def test_events_are_one_document_and_one_line_each(mfm: Mfm, finished: dict[str, Any]) -> None:
    events = mfm("run", "events", "last", "--json").data
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event["run_id"] for event in events} == {finished["run_id"]}
    lines = mfm("run", "events", "last").out.splitlines()
    assert len(lines) == len(events)
    assert "RunCompleted  Completed" in lines[-1]
    assert all(line.isprintable() for line in lines)


def test_following_a_finished_run_ends(mfm: Mfm, finished: dict[str, Any]) -> None:
    result = mfm("run", "events", finished["run_id"], "--follow", "--json")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 0
    assert events == mfm("run", "events", "last", "--json").data


def test_a_fact_leads_to_its_payload(mfm: Mfm, finished: dict[str, Any]) -> None:
    (fact,) = mfm("run", "facts", "last", "--json").data["facts"]
    assert fact["meta"]["transport"] == "exec"
    payload = mfm("artifact", "get", fact["payload_id"][:10])
    assert json.loads(payload.out) == finished["outputs"]["result"]
    assert hashlib.sha256(payload.out.encode()).hexdigest() == fact["payload_id"]
    assert fact["payload_id"][:16] in mfm("run", "facts", "last").out


def test_the_manifest_is_printed_as_it_is_stored(mfm: Mfm, finished: dict[str, Any]) -> None:
    report = mfm("run", "manifest", "last", "--json").data
    assert report["manifest_id"] == finished["manifest_id"]
    assert report["manifest"]["op_id"] == "run_program"
    assert json.loads(mfm("run", "manifest", "last").out) == report["manifest"]


def test_an_artifact_can_be_saved(mfm: Mfm, finished: dict[str, Any]) -> None:
    target = mfm.directory / "manifest.json"
    saved = mfm("artifact", "get", finished["manifest_id"], "-o", target)
    assert (saved.code, saved.out) == (0, "")
    assert hashlib.sha256(target.read_bytes()).hexdigest() == finished["manifest_id"]
    described = mfm("artifact", "get", finished["manifest_id"], "--json").data
    assert described["kind"] == "Manifest"
    assert described["json"] == json.loads(target.read_bytes())
    nowhere = mfm("artifact", "get", finished["manifest_id"], "-o", "no/such/dir/file", "--json")
    assert (nowhere.code, nowhere.error["code"]) == (2, "usage")
    assert [path.name for path in mfm.directory.glob(".mfm-*")] == []
    for output in (("-o", "-"), ()):
        printed = mfm("artifact", "get", finished["manifest_id"], *output)
        assert printed.out.encode() == target.read_bytes()
    directory = mfm("artifact", "get", finished["manifest_id"], "-o", mfm.directory)
    assert (directory.code, directory.out) == (2, "")


def test_an_unknown_artifact_is_a_store_error(mfm: Mfm, finished: dict[str, Any]) -> None:
    for name in ("0" * 64, "xyz", ""):
        result = mfm("artifact", "get", name, "--json")
        assert (result.code, result.error["code"]) == (3, "artifact_not_found")


def test_a_damaged_artifact_is_a_store_error(mfm: Mfm, finished: dict[str, Any]) -> None:
    connection = apsw.Connection(str(mfm.store))
    for (name,) in list(
        connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
    ):
        connection.execute(f'DROP TRIGGER "{name}"')
    connection.execute(
        "UPDATE artifacts SET body = zeroblob(size) WHERE id = ?",
        (bytes.fromhex(finished["manifest_id"]),),
    )
    connection.close()
    result = mfm("run", "manifest", "last", "--json")
    assert (result.code, result.error["code"]) == (3, "artifact_corrupt")


def test_a_failed_run_says_where_why_and_how_to_look(mfm: Mfm) -> None:
    result = mfm(*mfm.program("false"))
    assert (result.code, result.out) == (1, "")
    run_id = mfm("run", "list", "--json").data[0]["run_id"]
    for part in (
        "error[exec_failed]: ",
        "state_id: run_program.main.run",
        f"run_id: {run_id}",
        "exit_code: 1",
        f"mfm run status {run_id}",
        f"mfm run fork {run_id}",
    ):
        assert part in result.err
    failure = mfm("run", "status", "last", "--json").data["failure"]
    assert (failure["code"], failure["state_id"]) == ("exec_failed", "run_program.main.run")
    status = mfm("run", "status", "last").out
    assert "error[exec_failed]" in status
    assert f"hint: go on in a new run: mfm run fork {run_id}\n" in status


def test_a_failed_run_is_one_json_document(mfm: Mfm) -> None:
    result = mfm(*mfm.program("false"), "--json")
    assert result.code == 1
    assert result.error["code"] == "exec_failed"
    assert result.error["details"]["exit_code"] == 1
    assert result.error["details"]["state_id"] == "run_program.main.run"


def test_a_program_that_is_not_allowed_fails_the_run(mfm: Mfm) -> None:
    result = mfm(*mfm.program("true"), "--json", environ={"MFM_EXEC_ALLOW_PREFIXES": None})
    assert (result.code, result.error["code"]) == (1, "exec_program_not_allowed")


def test_input_comes_as_text_file_or_standard_input(mfm: Mfm) -> None:
    (mfm.directory / "input.json").write_text('{"from": "file"}')
    cat = mfm.program("cat")
    assert mfm(*cat, "--stdin-json", '{"from": "text"}', "--json").data["outputs"] == {
        "result": {"from": "text"}
    }
    assert mfm(*cat, "--stdin-json", "@input.json", "--json").data["outputs"] == {
        "result": {"from": "file"}
    }
    assert mfm(*cat, "--stdin-json", "-", "--json", stdin=b"[1]").data["outputs"] == {"result": [1]}
    for wrong in ("{", "1.5", "@missing", '{"a":1,"a":2}'):
        error = mfm(*cat, "--stdin-json", wrong, "--json").error
        assert error["code"] == "op_config_invalid"
        assert error["details"]["reason"].startswith("--stdin-json: ")


def test_variables_are_written_as_pairs(mfm: Mfm) -> None:
    script = 'echo "\\"$A-$B\\""'
    run = mfm.program("sh", "-c", script)
    assert mfm(*run, "--env", "A=x=y", "--env", "B=", "--json").data["outputs"] == {
        "result": "x=y-"
    }
    for wrong in ("A", "=x"):
        assert "KEY=VALUE" in mfm(*run, "--env", wrong).err


def test_a_run_key_starts_one_run(mfm: Mfm) -> None:
    first = mfm(*mfm.program("echo", "1"), "--run-key", "nightly", "--json").data
    again = mfm(*mfm.program("echo", "1"), "--run-key", "nightly", "--json").data
    other = mfm(*mfm.program("echo", "1"), "--run-key", "weekly", "--json").data
    assert first == again
    assert other["run_id"] != first["run_id"]
    assert len(mfm("run", "list", "--json").data) == 2


def test_run_options_stand_in_the_manifest(mfm: Mfm) -> None:
    options = ("--event-profile", "minimal", "--max-attempts", "7")
    assert mfm(*mfm.program("echo", "1"), *options).code == 0
    config = mfm("run", "manifest", "last", "--json").data["manifest"]["run_config"]
    assert config["event_profile"] == "Minimal"
    assert config["retry_policy"]["max_attempts"] == 7


def test_states_are_skipped_by_a_tag_that_they_have(mfm: Mfm) -> None:
    (mfm.directory / "keys").mkdir()
    listing = ("op", "keystore_list", "--keystore", "keys")
    misspelt = mfm(*listing, "--skip-tag", "reprot", "--json")
    assert (misspelt.code, misspelt.error["code"]) == (2, "usage")
    assert mfm("run", "list", "--json").data == []
    assert mfm(*listing, "--skip-tag", "fetch_data").code != 2
    config = mfm("run", "manifest", "last", "--json").data["manifest"]["run_config"]
    assert config["skip_tags"] == ["fetch_data"]


def test_resuming_a_finished_run_returns_its_result(mfm: Mfm, finished: dict[str, Any]) -> None:
    assert mfm("run", "resume", "last", "--json").data == finished
    mfm(*mfm.program("false"))
    assert mfm("run", "resume", "last").code == 1


def test_progress_and_stderr_are_shown_if_asked_for(mfm: Mfm) -> None:
    talk = mfm.program("sh", "-c", "printf 'looking\\033[31m\\n' >&2; echo 1")
    quiet = mfm(*talk)
    assert quiet.err == ""
    shown = mfm(*talk, "--progress", "--show-stderr")
    assert "looking\\x1b[31m\n" in shown.err
    assert "ok run_program.main.run " in shown.err
    assert shown.out == quiet.out == "1\n"


@pytest.mark.parametrize(
    ("script", "timeout_ms", "code"),
    [
        ("head -c 300000 /dev/zero >&2; sleep 1000", 3_000, "exec_timeout"),
        ("yes >&2", 60_000, "exec_stderr_too_large"),
    ],
)
async def test_limits_hold_though_nobody_reads_what_a_program_says(
    mfm: Mfm, script: str, timeout_ms: int, code: str
) -> None:
    # As on a terminal that was stopped by Ctrl-S.
    program = mfm.program("sh", "-c", script)
    limits = ("--timeout-ms", str(timeout_ms), "--max-attempts", "1")
    options = (*limits, "--show-stderr", "--progress")
    with mfm.started(*program, *options) as process:
        await wait_for(mfm, lambda events: "RunCompleted" in json.dumps(events))
        told = process.communicate()[1]
    assert f"error[{code}]" in told
    assert len(told) > 300_000


def test_terminal_commands_in_data_are_written_out(mfm: Mfm) -> None:
    evil = '"\\u001b]0;owned\\u0007\\u202e\\u009b31m"'
    for arguments in ((), ("--json",)):
        result = mfm(*mfm.program("echo", evil), *arguments)
        assert result.code == 0
        assert all(line.isprintable() for line in result.out.split("\n"))
    assert mfm(*mfm.program("echo", evil), "--json").data["outputs"]["result"] == json.loads(evil)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_kills_programs_and_leaves_a_run_that_resumes(
    mfm: Mfm, number: int, code: int
) -> None:
    marker = a_long_time()
    with mfm.started(*mfm.program("sleep", marker)) as process:
        run_id = await wait_for(mfm, entered)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert f"resume with: mfm run resume {run_id}" in err
    assert out == ""
    assert processes_with(marker) == []
    status = mfm("run", "status", run_id, "--json").data
    assert (status["phase"], status["driver"]) == ("Running", None)
    with mfm.started("run", "resume", run_id, "--json") as process:
        await wait_for(mfm, lambda events: sum("StateEntered" in str(e) for e in events) == 2)
        process.send_signal(number)
        again, _ = process.communicate(timeout=120)
    assert process.returncode == code
    assert json.loads(again)["error"]["code"] == "interrupted"
    assert processes_with(marker) == []


async def test_a_second_signal_changes_nothing(mfm: Mfm) -> None:
    marker = a_long_time()
    with mfm.started(*mfm.program("sleep", marker)) as process:
        run_id = await wait_for(mfm, entered)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
    assert processes_with(marker) == []
    assert mfm("run", "status", run_id).code == 0


async def test_a_run_that_is_driven_is_busy(mfm: Mfm) -> None:
    with mfm.started(*mfm.program("sleep", "3200.25")) as process:
        run_id = await wait_for(mfm, entered)
        status = mfm("run", "status", run_id, "--json").data
        assert status["driver"]["alive"]
        assert status["driver"]["pid"] == process.pid
        result = mfm("run", "resume", run_id, "--json")
        assert (result.code, result.error["code"]) == (3, "run_busy")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)


async def test_an_effect_that_was_killed_parks_the_run(mfm: Mfm) -> None:
    with mfm.started(*mfm.program("sleep", "3300.25"), "--effect") as process:
        run_id = await wait_for(mfm, lambda events: "mfm.io_intent" in str(events))
        process.kill()
        process.communicate(timeout=120)
    assert mfm("run", "status", run_id, "--json").data["driver"]["alive"] is False
    result = mfm("run", "resume", run_id, "--json")
    assert (result.code, result.error["code"]) == (5, "effect_unknown")
    status = mfm("run", "status", run_id, "--json").data
    assert status["parked"]
    assert len(status["waits_for"]) == 1
    text = mfm("run", "status", run_id).out
    assert "phase     Parked" in text
    assert "run_program.main.run  parked  1" in text
    assert (status["activity"], status["states"][0]["activity"]) == ("parked", "parked")
    assert mfm("run", "list").out.splitlines()[1].endswith("  Parked")


async def test_a_run_whose_driver_was_killed_is_not_shown_as_running(mfm: Mfm) -> None:
    with mfm.started(*mfm.program("sleep", "3350.25")) as process:
        run_id = await wait_for(mfm, entered)
        alive = mfm("run", "status", run_id, "--json").data
        assert (alive["activity"], alive["states"][0]["activity"]) == ("running", "running")
        assert (alive["driver"]["alive"], alive["driver"]["liveness"]) == (True, "alive")
        assert mfm("run", "list").out.splitlines()[1].endswith("  Running")
        process.kill()
        process.communicate(timeout=120)
    status = mfm("run", "status", run_id, "--json").data
    assert (status["phase"], status["activity"]) == ("Running", "interrupted")
    (state,) = status["states"]
    assert (state["status"], state["activity"]) == ("running", "interrupted")
    assert (status["driver"]["alive"], status["driver"]["liveness"]) == (False, "gone")
    text = mfm("run", "status", run_id).out
    assert "phase     Interrupted\n" in text
    assert f"pid {process.pid} on " in text
    assert f"gone\nhint: mfm run resume {run_id}\n" in text
    assert "run_program.main.run  interrupted  1" in text
    listed = mfm("run", "list")
    assert listed.out.splitlines()[1].endswith("  Interrupted")
    assert "mfm run resume RUN" in listed.err
    (run,) = mfm("run", "list", "--json").data
    assert (run["phase"], run["activity"], run["last_event"]) == (
        *("Running", "interrupted"),
        "StateEntered",
    )


async def test_of_a_driver_on_another_host_nothing_is_claimed(mfm: Mfm) -> None:
    with mfm.started(*mfm.program("sleep", "3360.25")) as process:
        run_id = await wait_for(mfm, entered)
        process.kill()
        process.communicate(timeout=120)
    (driver,) = [
        event["event"]["Domain"]["payload"]
        for event in mfm("run", "events", run_id, "--json").data
        if event["event"].get("Domain", {}).get("name") == "mfm.driver"
    ]
    async with open_sqlite_store(mfm.store) as store:
        elsewhere = Event(Domain=DomainEvent(name="mfm.driver", payload={**driver, "host": "far"}))
        head = await store.head_seq(run_id)
        moved = EventEnvelope(run_id=run_id, seq=head + 1, ts_millis=0, event=elsewhere)
        await store.append(run_id, head, [moved])
    status = mfm("run", "status", run_id, "--json").data
    assert (status["activity"], status["states"][0]["activity"]) == ("unknown", "unknown")
    assert status["driver"]["liveness"] == "unknown"
    text = mfm("run", "status", run_id).out
    assert "phase     Running?\n" in text
    assert " on far, where this host cannot look\n" in text
    assert f"mfm run resume {run_id} --take-over\n" in text
    assert "run_program.main.run  running?  1" in text
    assert mfm("run", "list").out.splitlines()[1].endswith("  Running?")


def test_the_list_says_how_runs_ended(mfm: Mfm, finished: dict[str, Any]) -> None:
    mfm(*mfm.program("false"))
    listed = mfm("run", "list")
    assert listed.err == ""
    assert [line.split()[-1] for line in listed.out.splitlines()[1:]] == ["Failed", "Completed"]
    phases = [(run["phase"], run["activity"]) for run in mfm("run", "list", "--json").data]
    assert phases == [("Failed", None), ("Completed", None)]


async def test_followed_events_appear_while_the_run_goes_on(mfm: Mfm) -> None:
    with mfm.started(*mfm.program("sleep", "3400.25")) as process:
        run_id = await wait_for(mfm, entered)
        with mfm.started("run", "events", run_id, "--follow") as follower:
            assert follower.stdout is not None
            while "StateEntered" not in follower.stdout.readline():
                pass
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=120)
            while "mfm.driver_stopped" not in follower.stdout.readline():
                pass
            follower.send_signal(signal.SIGINT)
            _, err = follower.communicate(timeout=120)
        assert (follower.returncode, err) == (0, "")


async def test_following_a_quiet_run_ends_when_its_reader_leaves(mfm: Mfm) -> None:
    with mfm.started(*mfm.program("sleep", "3400.25")) as process:
        run_id = await wait_for(mfm, entered)
        with mfm.started("run", "events", run_id, "--follow") as follower:
            assert follower.stdout is not None
            while "StateEntered" not in follower.stdout.readline():
                pass
            # Nothing more is written, which would find the pipe closed.
            follower.stdout.close()
            assert follower.wait(timeout=120) == 0
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)


def test_a_store_on_a_read_only_directory_can_be_looked_at(mfm: Mfm, finished: object) -> None:
    if os.geteuid() == 0:
        # Permissions don't bind root; a store that nobody may write is as good.
        subprocess.run(["chmod", "a-w", str(mfm.store), str(mfm.directory)], check=True)
    assert mfm("run", "list").code == 0
    mfm.directory.chmod(0o755)
