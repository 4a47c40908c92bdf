"""`--require-clean` and `--require-locked`: refused before anything runs or is stored."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.mfm_process import ROOT, Mfm, Result

OP = ("op", "keystore_list", "--keystore", str(ROOT / "examples/keystore"), "--json")
NO_INPUTS = '{"nodes": {"root": {}}, "root": "root", "version": 7}\n'


def git(directory: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=directory, check=True, capture_output=True)


def commit(directory: Path) -> None:
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message=x")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A clean repository with a locked flake, and no inputs to lock."""
    top = tmp_path / "a repo"
    (top / "below").mkdir(parents=True)
    (top / "flake.nix").write_text("{ outputs = _: { }; }\n")
    (top / "flake.lock").write_text(NO_INPUTS)
    (top / "below/file").write_text("x\n")
    git(top, "init", "--quiet")
    commit(top)
    return top


@pytest.fixture
def mfm(tmp_path: Path, repo: Path) -> Mfm:
    found = Mfm(tmp_path)
    found.directory = repo
    return found


def refused(mfm: Mfm, result: Result, code: str) -> dict[str, str]:
    """The details of the refusal, which left nothing behind."""
    assert result.code == 2
    error = result.error
    assert error["code"] == code
    assert error["hint"]
    assert not mfm.store.exists()
    details = error["details"]
    assert isinstance(details, dict)
    return details


# --- clean ---------------------------------------------------------------------------------------


def test_a_clean_workspace_is_accepted_and_its_manifest_is_the_same(mfm: Mfm) -> None:
    plain = mfm(*OP).data
    required = mfm(*OP, "--require-clean", "--require-locked").data
    assert required["manifest_id"] == plain["manifest_id"]
    workspace = mfm("--json", "run", "manifest", "last").data["manifest"]["workspace"]
    assert workspace["dirty"] is False
    assert workspace["flake"]["lock"] == "committed"


def test_untracked_files_make_nothing_dirty(mfm: Mfm) -> None:
    (mfm.directory / "untracked").write_text("x")
    assert mfm(*OP, "--require-clean").code == 0


def _changed(repo: Path) -> None:
    (repo / "below/file").write_text("changed\n")


def _staged(repo: Path) -> None:
    (repo / "new").write_text("new\n")
    git(repo, "add", "new")


def _removed(repo: Path) -> None:
    (repo / "below/file").unlink()


@pytest.mark.parametrize("change", [_changed, _staged, _removed])
def test_a_changed_workspace_is_refused(mfm: Mfm, change: Callable[[Path], None]) -> None:
    change(mfm.directory)
    mfm.directory /= "below"
    assert refused(mfm, mfm(*OP, "--require-clean"), "workspace_dirty") == {"reason": "modified"}


def test_what_is_no_repository_is_not_clean(mfm: Mfm, tmp_path: Path) -> None:
    mfm.directory = tmp_path
    details = refused(mfm, mfm(*OP, "--require-clean"), "workspace_dirty")
    assert details == {"reason": "no_repository"}


def test_a_repository_without_a_commit_is_not_clean(mfm: Mfm, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "fresh")
    mfm.directory = tmp_path / "fresh"
    assert refused(mfm, mfm(*OP, "--require-clean"), "workspace_dirty") == {"reason": "no_commit"}


def test_what_git_cannot_tell_is_not_clean(mfm: Mfm) -> None:
    result = mfm(*OP, "--require-clean", environ={"PATH": "/nonexistent"})
    assert refused(mfm, result, "workspace_dirty") == {"reason": "unknown"}


def test_the_refusal_tells_a_person_what_to_do(mfm: Mfm) -> None:
    _changed(mfm.directory)
    result = mfm(*OP[:-1], "--require-clean")
    assert (result.code, result.out) == (2, "")
    assert "error[workspace_dirty]: the workspace is not a clean commit" in result.err
    assert "reason: modified" in result.err
    assert "hint: Commit or undo what `git status` shows" in result.err


# --- locked --------------------------------------------------------------------------------------


def test_the_lock_must_be_there(mfm: Mfm) -> None:
    (mfm.directory / "flake.lock").unlink()
    commit(mfm.directory)
    details = refused(mfm, mfm(*OP, "--require-locked"), "workspace_unlocked")
    assert details == {"file": "flake.lock", "reason": "missing"}


def test_the_lock_must_be_the_commits(mfm: Mfm) -> None:
    (mfm.directory / "flake.lock").write_text(NO_INPUTS + "\n")
    details = refused(mfm, mfm(*OP, "--require-locked"), "workspace_unlocked")
    assert details == {"file": "flake.lock", "reason": "modified"}
    git(mfm.directory, "add", "flake.lock")
    details = refused(mfm, mfm(*OP, "--require-locked"), "workspace_unlocked")
    assert details == {"file": "flake.lock", "reason": "staged"}


def test_a_lock_that_git_does_not_track_locks_nothing(mfm: Mfm) -> None:
    git(mfm.directory, "rm", "--quiet", "--cached", "flake.lock")
    git(mfm.directory, "commit", "--quiet", "--message=x")
    details = refused(mfm, mfm(*OP, "--require-locked"), "workspace_unlocked")
    assert details == {"file": "flake.lock", "reason": "untracked"}


def add_input(repo: Path) -> None:
    """The flake gets an input that its lock does not know; all of it is committed."""
    (repo / "flake.nix").write_text(
        '{ inputs.more.url = "path:/nonexistent"; outputs = _: { }; }\n'
    )
    commit(repo)


def test_a_lock_that_does_not_cover_the_flakes_inputs_is_outdated(mfm: Mfm) -> None:
    add_input(mfm.directory)
    details = refused(mfm, mfm(*OP, "--require-locked"), "workspace_unlocked")
    assert details == {"file": "flake.lock", "reason": "outdated"}
    before = (mfm.directory / "flake.lock").read_text()
    assert before == NO_INPUTS


def test_without_nix_only_the_files_are_judged(mfm: Mfm, tmp_path: Path) -> None:
    add_input(mfm.directory)
    only_git = tmp_path / "only git"
    only_git.mkdir()
    (only_git / "git").symlink_to(str(shutil.which("git")))
    assert mfm(*OP, "--require-locked", environ={"PATH": str(only_git)}).code == 0


def test_the_flake_of_a_subfolder_has_a_lock_of_its_own(mfm: Mfm) -> None:
    below = mfm.directory / "below"
    (below / "flake.nix").write_text("{ outputs = _: { }; }\n")
    commit(mfm.directory)
    assert mfm(*OP, "--require-locked").code == 0
    mfm.store.unlink()
    mfm.directory = below
    details = refused(mfm, mfm(*OP, "--require-locked"), "workspace_unlocked")
    assert details == {"file": "below/flake.lock", "reason": "missing"}
    (below / "flake.lock").write_text(NO_INPUTS)
    commit(below)
    assert mfm(*OP, "--require-locked", "--require-clean").code == 0


def test_every_lock_file_that_counts_must_be_committed(mfm: Mfm) -> None:
    (mfm.directory / "uv.lock").write_text("x")
    details = refused(mfm, mfm(*OP, "--require-locked"), "workspace_unlocked")
    assert details == {"file": "uv.lock", "reason": "untracked"}


def test_a_workspace_of_other_tools_needs_no_flake(mfm: Mfm) -> None:
    for name in ("flake.nix", "flake.lock"):
        (mfm.directory / name).unlink()
    commit(mfm.directory)
    details = refused(mfm, mfm(*OP, "--require-locked"), "workspace_unlocked")
    assert details == {"reason": "no_lock"}
    (mfm.directory / "uv.lock").write_text("x")
    commit(mfm.directory)
    assert mfm(*OP, "--require-locked").code == 0


def test_what_is_no_repository_is_not_locked(mfm: Mfm, tmp_path: Path) -> None:
    (tmp_path / "flake.nix").write_text("{ outputs = _: { }; }\n")
    (tmp_path / "flake.lock").write_text(NO_INPUTS)
    mfm.directory = tmp_path
    details = refused(mfm, mfm(*OP, "--require-locked"), "workspace_unlocked")
    assert details == {"reason": "no_repository"}


def test_looking_writes_nothing_into_the_workspace(mfm: Mfm) -> None:
    assert mfm(*OP, "--require-clean", "--require-locked").code == 0
    status = subprocess.run(
        ["git", "status", "--porcelain", "--ignored"],
        cwd=mfm.directory,
        capture_output=True,
        text=True,
        check=True,
    )
    assert status.stdout == ""


def test_a_fork_is_a_start_too(mfm: Mfm) -> None:
    source = mfm(*OP).data["run_id"]
    fork = ("run", "fork", source, "--from", "select", "--json")
    assert mfm(*fork, "--require-clean", "--require-locked").code == 0
    (mfm.directory / "flake.lock").write_text("changed\n")
    before = len(mfm("run", "list", "--json").data)
    for option, code in {"clean": "workspace_dirty", "locked": "workspace_unlocked"}.items():
        refusal = mfm(*fork, f"--require-{option}")
        assert (refusal.code, refusal.error["code"]) == (2, code)
    assert len(mfm("run", "list", "--json").data) == before


def test_a_run_key_does_not_get_round_a_requirement(mfm: Mfm) -> None:
    first = mfm(*OP, "--run-key", "k", "--require-clean").data
    assert mfm(*OP, "--run-key", "k", "--require-clean").data["run_id"] == first["run_id"]
    _changed(mfm.directory)
    assert json.loads(mfm(*OP, "--run-key", "k", "--require-clean").out)["status"] == "error"
