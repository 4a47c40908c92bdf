"""examples/ci/: the script as an operator's CI runs it, and what it makes of runs that differ."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.mfm_process import COMMAND, ROOT, Mfm, busybox

SCRIPT = ROOT / "examples/ci/reproducible.sh"
WORKFLOW = ROOT / "examples/ci/github-actions.yml"
KEYSTORES = ("keystore_list", "--keystore", str(ROOT / "examples/keystore"))
# A program whose answer is another one each time.
RANDOM = 'read -r id </proc/sys/kernel/random/uuid; echo "\\"$id\\""'


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """`mfm` as one word."""
    path = tmp_path / "bin/mfm"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    path.chmod(0o755)
    return path


def reproducible(
    mfm: Path, *arguments: str, cwd: Path, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", SCRIPT, *arguments],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "MFM": str(mfm),
            "MFM_EXEC_ALLOW_PREFIXES": str(busybox().parent),
            **environ,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def program(*argv: str) -> tuple[str, ...]:
    words = [word for arg in argv for word in ("--argv", arg)]
    return ("run_program", "--program-path", str(busybox()), *words)


def test_a_run_that_is_reproduced_is_said_to_be(command: Path, tmp_path: Path) -> None:
    done = reproducible(command, *KEYSTORES, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.match(r"manifest_id [0-9a-f]{64}\nfinal_snapshot_id [0-9a-f]{64}\n", done.stdout)
    assert "reproduced (2 of 2 states)" in done.stdout
    assert done.stderr == ""


def test_ids_in_the_outputs_are_not_mistaken_for_the_runs(command: Path, tmp_path: Path) -> None:
    text = '{"manifest_id": "0", "final_snapshot_id": "1", "outputs": {"manifest_id": "2"}}'
    done = reproducible(command, *program("echo", text), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.match(r"manifest_id [0-9a-f]{64}\n", done.stdout)


def test_a_second_run_that_ends_otherwise_fails_and_is_shown(command: Path, tmp_path: Path) -> None:
    done = reproducible(command, *program("sh", "-c", RANDOM), cwd=tmp_path)
    assert done.returncode == 4
    assert "the second run differs: final_snapshot_id" in done.stderr
    assert len(re.findall(r'^[<>] .*"outputs":', done.stderr, re.MULTILINE)) == 2
    assert "reproduced" not in done.stdout


def test_a_second_run_of_another_manifest_fails_and_is_shown(command: Path, tmp_path: Path) -> None:
    script = tmp_path / "meddling"
    script.write_text(
        f'#!/bin/sh\nexport STAGE=$$ MFM_PROVENANCE_ENV_ALLOWLIST=STAGE\nexec {command} "$@"\n'
    )
    script.chmod(0o755)
    done = reproducible(script, *KEYSTORES, cwd=tmp_path)
    assert done.returncode == 4
    assert "the second run differs: manifest_id" in done.stderr
    assert "STAGE" in done.stderr


def test_a_run_that_fails_ends_with_its_own_code_and_says_why(
    command: Path, tmp_path: Path
) -> None:
    done = reproducible(command, *program("false"), cwd=tmp_path)
    assert done.returncode == 1
    assert '"code":"exec_failed"' in done.stderr
    done = reproducible(command, *KEYSTORES, "--require-clean", cwd=tmp_path)
    assert done.returncode == 2
    assert '"code":"workspace_dirty"' in done.stderr


def test_without_an_op_the_usage_is_printed(command: Path, tmp_path: Path) -> None:
    done = reproducible(command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: reproducible.sh OP" in done.stderr


def test_a_run_can_be_kept_and_replayed_elsewhere(command: Path, tmp_path: Path) -> None:
    done = reproducible(command, *KEYSTORES, cwd=tmp_path, MFM_EXPORT=str(tmp_path / "run.mfm"))
    assert done.returncode == 0, done.stderr
    elsewhere = Mfm(tmp_path)
    elsewhere("run", "import", tmp_path / "run.mfm")
    assert elsewhere("run", "replay", "last").code == 0


def test_nothing_is_left_behind(command: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    reproducible(command, *KEYSTORES, cwd=tmp_path, TMPDIR=str(scratch))
    reproducible(command, *program("false"), cwd=tmp_path, TMPDIR=str(scratch))
    assert list(scratch.iterdir()) == []


def test_the_workflow_runs_what_is_there(command: Path, tmp_path: Path) -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    found = re.search(r"run: >-\n((?: {10}.*\n)+)", text)
    assert found
    script, *arguments = found[1].split()
    assert ROOT / script == SCRIPT
    assert os.access(SCRIPT, os.X_OK)
    # What the workspace must be is for a checkout to be asked; here it may be anything.
    plain = [word for word in arguments if not word.startswith("--require-")]
    assert len(plain) == len(arguments) - 2
    done = reproducible(command, *plain, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_guide_shows_the_workflow_as_it_is() -> None:
    text = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert shown == WORKFLOW.read_text(encoding="utf-8")


def test_the_script_is_plain_posix() -> None:
    for shell in (["sh"], [str(busybox()), "sh"]):
        done = subprocess.run([*shell, "-n", SCRIPT], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
