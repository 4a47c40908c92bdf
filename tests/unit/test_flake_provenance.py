"""What provenance says of flakes and of Nix: real repositories, real git, real Nix."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mfm_ops.machine.canonical import artifact_id_for_json
from mfm_ops.machine.config import FlakeProvenance, LockState, RunsFrom, WorkspaceProvenance
from mfm_ops.sdk.installation import BAKED_BUILD_NAME, runs_from
from mfm_ops.sdk.nix import nix_system, nix_version, version_in_path
from mfm_ops.sdk.provenance import collect_build, collect_provenance, collect_workspace


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=directory, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A clean repository with one commit and a locked flake."""
    top = tmp_path / "repo"
    (top / "deploy" / "scripts").mkdir(parents=True)
    (top / "flake.nix").write_text("{ outputs = _: { }; }\n")
    (top / "flake.lock").write_text("{}\n")
    (top / "deploy" / "scripts" / "run").write_text("x\n")
    git(top, "init", "--quiet", "--initial-branch=main")
    git(top, "add", "--all")
    git(top, "commit", "--quiet", "--message=one")
    return top


def look(directory: Path) -> WorkspaceProvenance:
    found = collect_workspace(directory, (), os.environ)
    assert found is not None
    return found


def flake(directory: Path) -> FlakeProvenance:
    found = look(directory).flake
    assert found is not None
    return found


# --- the flake of a workspace --------------------------------------------------------------------


def test_a_clean_flake_is_named_by_commit_and_its_lock_is_committed(repo: Path) -> None:
    commit = git(repo, "rev-parse", "HEAD")
    assert flake(repo) == FlakeProvenance(url=".", rev=commit, lock=LockState.committed)


def test_a_workspace_without_a_flake_has_none(repo: Path) -> None:
    (repo / "flake.nix").unlink()
    assert look(repo).flake is None


def test_the_flake_is_the_nearest_one_above_the_working_directory(repo: Path) -> None:
    assert flake(repo / "deploy" / "scripts").url == "."
    for name in ("flake.nix", "flake.lock"):
        shutil.copy(repo / name, repo / "deploy")
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--message=two")
    found = flake(repo / "deploy" / "scripts")
    assert (found.url, found.lock) == ("./deploy", LockState.committed)
    assert look(repo / "deploy" / "scripts").lock_hashes == dict.fromkeys(
        ("deploy/flake.lock", "flake.lock"), hashlib.sha256(b"{}\n").hexdigest()
    )


def test_a_directory_whose_name_is_no_text_is_named_all_the_same(repo: Path) -> None:
    odd = repo / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    for name in ("flake.nix", "flake.lock"):
        shutil.copy(repo / name, odd)
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--message=two")
    found = look(odd)
    assert found.flake is not None
    assert (found.flake.url, found.flake.lock) == ("./caf\\xe9", LockState.committed)
    assert sorted(found.lock_hashes or ()) == ["caf\\xe9/flake.lock", "flake.lock"]
    assert artifact_id_for_json(found.model_dump(mode="json"))


def test_a_dirty_tree_is_no_revision(repo: Path) -> None:
    (repo / "deploy" / "scripts" / "run").write_text("changed\n")
    assert flake(repo) == FlakeProvenance(url=".", lock=LockState.committed)


def _missing(repo: Path) -> None:
    (repo / "flake.lock").unlink()


def _modified(repo: Path) -> None:
    (repo / "flake.lock").write_text("changed\n")


def _staged(repo: Path) -> None:
    _modified(repo)
    git(repo, "add", "flake.lock")


def _staged_anew(repo: Path) -> None:
    git(repo, "rm", "--quiet", "--cached", "flake.lock")
    git(repo, "commit", "--quiet", "--message=without")
    git(repo, "add", "flake.lock")


def _staged_then_modified(repo: Path) -> None:
    _staged(repo)
    (repo / "flake.lock").write_text("changed again\n")


def _untracked(repo: Path) -> None:
    git(repo, "rm", "--quiet", "--cached", "flake.lock")
    git(repo, "commit", "--quiet", "--message=without")


def _ignored(repo: Path) -> None:
    _untracked(repo)
    (repo / ".git" / "info" / "exclude").write_text("flake.lock\n")


def _in_conflict(repo: Path) -> None:
    git(repo, "checkout", "--quiet", "-b", "side")
    (repo / "flake.lock").write_text("side\n")
    git(repo, "commit", "--quiet", "--all", "--message=side")
    git(repo, "checkout", "--quiet", "main")
    (repo / "flake.lock").write_text("main\n")
    git(repo, "commit", "--quiet", "--all", "--message=main")
    subprocess.run(["git", "merge", "side"], cwd=repo, check=False, capture_output=True)


def _not_looked_at(repo: Path) -> None:
    git(repo, "update-index", "--assume-unchanged", "flake.lock")
    _modified(repo)


def _link(repo: Path) -> None:
    (repo / "flake.lock").rename(repo / "elsewhere")
    (repo / "flake.lock").symlink_to("elsewhere")
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--message=a link")


def _directory(repo: Path) -> None:
    (repo / "flake.lock").unlink()
    (repo / "flake.lock").mkdir()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_missing, LockState.missing),
        (_modified, LockState.modified),
        (_staged, LockState.staged),
        (_staged_anew, LockState.staged),
        (_staged_then_modified, LockState.modified),
        (_untracked, LockState.untracked),
        (_ignored, LockState.untracked),
        (_in_conflict, LockState.modified),
        (_not_looked_at, LockState.unknown),
        (_link, LockState.unknown),
        (_directory, LockState.unknown),
    ],
)
def test_how_the_lock_stands_is_said(
    repo: Path, change: Callable[[Path], None], expected: LockState
) -> None:
    change(repo)
    assert flake(repo).lock is expected


def test_a_lock_of_a_first_commit_to_be_is_staged(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    for name in ("flake.nix", "flake.lock"):
        (tmp_path / name).write_text("{}\n")
    git(tmp_path, "add", "--all")
    assert flake(tmp_path) == FlakeProvenance(url=".", lock=LockState.staged)


def test_without_git_how_the_lock_stands_is_unknown(repo: Path) -> None:
    found = collect_workspace(repo, (), {"PATH": "/nonexistent"})
    assert found is not None
    assert found.flake == FlakeProvenance(url=".", lock=LockState.unknown)


def test_a_flake_outside_a_repository_is_named_and_its_lock_hashed(tmp_path: Path) -> None:
    (tmp_path / "flake.nix").write_text("{ outputs = _: { }; }\n")
    assert look(tmp_path).model_dump(mode="json") == {"flake": {"url": ".", "lock": "missing"}}
    (tmp_path / "flake.lock").write_text("{}\n")
    assert look(tmp_path).model_dump(mode="json") == {
        "flake": {"url": ".", "lock": "unknown"},
        "lock_hashes": {"flake.lock": hashlib.sha256(b"{}\n").hexdigest()},
    }


def test_a_flake_above_a_directory_that_is_in_no_repository_is_not_its_flake(
    tmp_path: Path,
) -> None:
    (tmp_path / "flake.nix").write_text("{ outputs = _: { }; }\n")
    (tmp_path / "below").mkdir()
    assert collect_workspace(tmp_path / "below", (), os.environ) is None


# --- the flake that mfm was built from -----------------------------------------------------------


@pytest.fixture
def checkout(repo: Path) -> Path:
    """The package of a checkout of mfm."""
    (repo / "mfm_ops").mkdir()
    (repo / "pyproject.toml").write_text('[project]\nname = "mfm-ops"\n')
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--message=mfm")
    return repo / "mfm_ops"


def test_a_checkout_says_that_it_is_one_and_how_its_lock_stands(checkout: Path) -> None:
    build = collect_build((), os.environ, package=checkout)
    assert build.runs_from is RunsFrom.checkout
    assert build.flake is not None
    assert (build.flake.rev, build.flake.lock) == (build.git_commit, LockState.committed)
    _modified(checkout.parent)
    build = collect_build((), os.environ, package=checkout)
    assert build.flake == FlakeProvenance(url=".", lock=LockState.modified)


def test_a_copy_of_the_source_without_git_has_a_flake_whose_lock_is_unknown(
    checkout: Path,
) -> None:
    shutil.rmtree(checkout.parent / ".git")
    build = collect_build((), os.environ, package=checkout)
    assert build.flake == FlakeProvenance(url=".", lock=LockState.unknown)
    assert build.flake_lock_hash == hashlib.sha256(b"{}\n").hexdigest()


def test_what_is_neither_a_checkout_nor_in_the_store_is_installed(tmp_path: Path) -> None:
    assert runs_from(tmp_path) is RunsFrom.installed


def test_what_lies_in_the_store_is_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/nix/store/x-mfm/lib/mfm_ops")
    assert runs_from(tmp_path / "link") is RunsFrom.nix_store
    assert runs_from(Path("/nix/storehouse/mfm_ops")) is RunsFrom.installed


# --- which Nix -----------------------------------------------------------------------------------


def shim(directory: Path, text: str) -> dict[str, str]:
    """An environment whose `nix` is a script that prints `text` and leaves a mark."""
    directory.mkdir()
    program = directory / "nix"
    program.write_text(f"#!/bin/sh\necho x >> '{directory}/ran'\necho '{text}'\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}


def test_a_run_that_uses_no_nix_starts_none_and_names_none(tmp_path: Path) -> None:
    environ = shim(tmp_path / "bin", "nix (Nix) 2.8.0")
    build, _ = collect_provenance(tmp_path, (), environ)
    assert (build.nix_version, build.nix_system) == (None, None)
    assert not (tmp_path / "bin" / "ran").exists()


def test_a_run_that_uses_nix_names_the_one_on_the_search_path(tmp_path: Path) -> None:
    build, _ = collect_provenance(tmp_path, (), os.environ, uses_nix=True)
    printed = subprocess.run(["nix", "--version"], capture_output=True, text=True, check=True)
    assert printed.stdout.split()[-1] == build.nix_version
    assert build.nix_system == nix_system()


def test_a_build_that_names_its_nix_asks_none(tmp_path: Path) -> None:
    environ = shim(tmp_path / "bin", "nix (Nix) 2.8.0")
    package = tmp_path / "mfm_ops"
    package.mkdir()
    (package / BAKED_BUILD_NAME).write_text('{"nix_version": "2.31.2", "nix_system": "s"}')
    build = collect_build((), environ, package=package, uses_nix=True)
    assert (build.nix_version, build.nix_system) == ("2.31.2", "s")
    assert not (tmp_path / "bin" / "ran").exists()


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("nix (Nix) 2.28.3", "2.28.3"),
        ("nix (Nix) 2.19.0pre20230901_abcdef0", "2.19.0pre20230901_abcdef0"),
        ("nix (Lix, like Nix) 2.91.1", "2.91.1"),
        ("nix (Determinate Nix 3.6.2) 2.29.0", "2.29.0"),
        ("something else", None),
    ],
)
def test_a_version_is_read_as_the_kinds_of_nix_print_it(
    tmp_path: Path, printed: str, version: str | None
) -> None:
    assert nix_version(shim(tmp_path / "bin", printed)) == version


def test_a_missing_nix_has_no_version() -> None:
    assert nix_version({"PATH": "/nonexistent"}) is None


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("nix-2.31.2/bin/nix", "2.31.2"),
        ("nix-cli-2.29.0/bin/nix", "2.29.0"),
        ("nix-2.19.0pre20230901_abcdef0/bin/nix", "2.19.0pre20230901_abcdef0"),
        ("nix-wrapper/bin/nix", None),
        ("nix-2.31.2/bin/../nix", None),
    ],
)
def test_a_nix_of_its_own_store_is_known_by_its_path(name: str, version: str | None) -> None:
    assert version_in_path(f"/nix/store/{'0123456789abcdfg' * 2}-{name}") == version
    assert version_in_path(f"/srv/{'0123456789abcdfg' * 2}-{name}") is None
