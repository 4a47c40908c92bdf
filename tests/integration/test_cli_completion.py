"""What a shell is offered for runs, states and artifacts: asked as the shells ask."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.mfm_process import COMMAND, Mfm, entered, wait_for

pytestmark = pytest.mark.anyio


@pytest.fixture
def mfm(tmp_path: Path) -> Mfm:
    return Mfm(tmp_path)


@pytest.fixture
def finished(mfm: Mfm) -> dict[str, Any]:
    data = mfm(*mfm.program("echo", "1"), "--json").data
    assert isinstance(data, dict)
    return data


def offered(mfm: Mfm, *words: str, **environ: str) -> list[str]:
    """What bash is offered for the last of `words`, which is not complete."""
    complete = {
        "_MFM_COMPLETE": "bash_complete",
        "COMP_WORDS": "\n".join(["mfm", *words]),
        "COMP_CWORD": str(len(words)),
    }
    result = mfm(environ={**complete, **environ})
    assert result.err == ""
    return [line.removeprefix("plain,") for line in result.out.split()]


def described(mfm: Mfm, *words: str) -> dict[str, str]:
    """What zsh is offered, with the descriptions."""
    complete = {
        "_MFM_COMPLETE": "zsh_complete",
        "COMP_WORDS": "\n".join(["mfm", *words]),
        "COMP_CWORD": str(len(words)),
    }
    lines = mfm(environ=complete).out.splitlines()
    return dict(zip(lines[1::3], lines[2::3], strict=True))


@pytest.mark.parametrize(
    "command",
    [
        *(("run", name) for name in ("status", "events", "facts", "manifest", "resume")),
        *(("run", name) for name in ("cancel", "resolve", "fork", "replay", "export")),
        ("store", "verify", "--run"),
    ],
)
def test_runs_are_offered_newest_first(
    mfm: Mfm, finished: dict[str, Any], command: tuple[str, ...]
) -> None:
    newer = mfm(*mfm.program("false"), "--json").error["details"]["run_id"]
    older = finished["run_id"]
    assert offered(mfm, *command, "") == ["last", newer, older]
    assert offered(mfm, *command, older[:8]) == [older]
    assert offered(mfm, *command, "zz") == []


def test_the_store_is_the_one_that_the_command_would_use(
    mfm: Mfm, finished: dict[str, Any], tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "nowhere.sqlite")
    assert offered(mfm, "run", "status", "", MFM_STORE=nowhere) == []
    there = ("--store", str(mfm.store))
    assert finished["run_id"] in offered(mfm, *there, "run", "status", "", MFM_STORE=nowhere)
    assert finished["run_id"] in offered(mfm, "run", "status", *there, "", MFM_STORE=nowhere)
    assert not Path(nowhere).exists()


def test_shells_that_show_it_get_op_and_phase(mfm: Mfm, finished: dict[str, Any]) -> None:
    about = described(mfm, "run", "status", "")
    assert about["last"] == "the newest run"
    assert about[finished["run_id"]] == "run_program completed"


def test_states_of_the_run_are_offered_to_fork_from(mfm: Mfm, finished: dict[str, Any]) -> None:
    assert offered(mfm, "run", "fork", "last", "--from", "") == ["run_program.main.run"]
    assert offered(mfm, "run", "fork", "last", "--from", "run_pro") == ["run_program.main.run"]
    # As the command takes it: the last part alone will do.
    assert offered(mfm, "run", "fork", "last", "--from", "ru") == ["run_program.main.run"]
    assert offered(mfm, "run", "fork", "nope", "--from", "") == []
    assert offered(mfm, "run", "fork", "--from", "") == []


async def test_states_in_doubt_are_offered_to_resolve(mfm: Mfm, finished: dict[str, Any]) -> None:
    assert offered(mfm, "run", "resolve", "last", "") == []
    with mfm.started(*mfm.program("sleep", "4700.25"), "--effect") as process:
        await wait_for_newest(mfm)
        process.kill()
        process.communicate(timeout=120)
    assert offered(mfm, "run", "resolve", "last", "") == ["run_program.main.run"]


async def wait_for_newest(mfm: Mfm) -> None:
    await wait_for(mfm, lambda events: entered(events) and "mfm.io_intent" in str(events))


def test_artifacts_of_the_newest_run_are_offered_and_others_by_their_prefix(
    mfm: Mfm, finished: dict[str, Any]
) -> None:
    manifest = finished["manifest_id"]
    assert described(mfm, "artifact", "get", "")[manifest] == "manifest"
    assert manifest in offered(mfm, "artifact", "get", "")
    mfm(*mfm.program("echo", "2"))
    assert manifest in offered(mfm, "artifact", "get", manifest[:6])
    assert offered(mfm, "artifact", "get", "zz") == []


@pytest.mark.parametrize(
    "words", [("nope", ""), ("run", "nope", ""), ("--store", "", "run"), ("run", "status", "a", "")]
)
def test_a_prompt_hears_of_no_error(mfm: Mfm, words: tuple[str, ...]) -> None:
    mfm.store.write_text("this is no store, and long enough to be read as one" * 20)
    offered(mfm, *words)
    assert offered(mfm, "run", "status", "") == []
    (mfm.directory / "mfm.toml").write_text("nonsense = 1\n")
    assert offered(mfm, "run", "status", "") == []


def test_bash_itself_completes_a_run(mfm: Mfm, finished: dict[str, Any], tmp_path: Path) -> None:
    command = tmp_path / "mfm"
    command.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    command.chmod(0o755)
    prefix = finished["run_id"][:6]
    script = (
        f'eval "$({command} completion bash)"; COMP_WORDS=(mfm run status {prefix}); COMP_CWORD=3; '
        f'_mfm_completion {command}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], env=mfm.environ, cwd=tmp_path, capture_output=True, check=True
    )
    assert (done.stdout.decode().split(), done.stderr) == ([finished["run_id"]], b"")
