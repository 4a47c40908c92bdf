"""`mfm_ops.sdk.provenance`, `git`, `locks`, `installation`: real repositories, real git.

What is said of flakes and asked of Nix is in `test_flake_provenance`.
"""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from mfm_ops import __version__
from mfm_ops.machine.canonical import artifact_id_for_json
from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.sdk.git import GitProbe, GitState, find_repository, head_commit, parse_status
from mfm_ops.sdk.installation import BAKED_BUILD_NAME, checkout_top, target_triple
from mfm_ops.sdk.locks import LOCK_FILES, lock_hashes
from mfm_ops.sdk.provenance import collect_build, collect_provenance, collect_workspace


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=directory, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A clean repository with one commit, a lock file at its top and another one below."""
    top = tmp_path / "repo"
    (top / "web" / "src").mkdir(parents=True)
    (top / "plain").mkdir()
    git(top, "init", "--quiet", "--initial-branch=main")
    (top / "flake.lock").write_text("{}\n")
    (top / "web" / "package-lock.json").write_text("[]\n")
    (top / "web" / "src" / "a.txt").write_text("a\n")
    (top / "plain" / "b.txt").write_text("b\n")
    git(top, "add", "--all")
    git(top, "commit", "--quiet", "--message=one")
    return top


def state(directory: Path, environ: Mapping[str, str] = os.environ) -> GitState:
    repository = find_repository(directory)
    assert repository is not None
    return GitProbe(environ).look(repository)


def unasked(directory: Path) -> GitState:
    """The state without a git: what the files alone say."""
    return state(directory, {"PATH": "/nonexistent"})


# --- the repository's state ---------------------------------------------------------------------


def test_a_clean_commit_is_named_and_not_dirty(repo: Path) -> None:
    assert state(repo) == GitState(git(repo, "rev-parse", "HEAD"), dirty=False)


def test_a_changed_tracked_file_is_dirty(repo: Path) -> None:
    (repo / "plain" / "b.txt").write_text("changed\n")
    assert state(repo).dirty is True


def test_a_staged_change_is_dirty(repo: Path) -> None:
    (repo / "plain" / "new.txt").write_text("new\n")
    git(repo, "add", "--all")
    assert state(repo).dirty is True


def test_an_untracked_file_is_not_dirty(repo: Path) -> None:
    (repo / "untracked.txt").write_text("x\n")
    assert state(repo).dirty is False


def test_a_touched_but_equal_file_is_not_dirty(repo: Path) -> None:
    (repo / "plain" / "b.txt").write_text("b\n")
    os.utime(repo / "plain" / "b.txt", (1, 1))
    assert state(repo).dirty is False


def test_a_detached_head_is_a_commit(repo: Path) -> None:
    git(repo, "checkout", "--quiet", "--detach")
    assert state(repo) == GitState(git(repo, "rev-parse", "HEAD"), dirty=False)
    assert unasked(repo).commit == state(repo).commit


def test_packed_refs_are_read_without_git(repo: Path) -> None:
    git(repo, "pack-refs", "--all")
    assert not (repo / ".git" / "refs" / "heads" / "main").exists()
    assert unasked(repo) == GitState(git(repo, "rev-parse", "HEAD"), None)


def test_a_missing_git_leaves_the_commit_known_and_dirt_unknown(repo: Path) -> None:
    assert unasked(repo) == GitState(git(repo, "rev-parse", "HEAD"), None)


def fake_git(tmp_path: Path, script: str) -> dict[str, str]:
    """The environment in which git is this shell script."""
    place = tmp_path / "bin"
    place.mkdir(exist_ok=True)
    (place / "git").write_text(f"#!/bin/sh\n{script}\n")
    (place / "git").chmod(0o755)
    return {**os.environ, "PATH": f"{place}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    "script",
    [
        "exit 0",
        "echo nonsense",
        "head -c 1000 /dev/zero",
        "printf '# branch.oid 12ab\\0'",
        "printf '# branch.oid %040d\\0? new\\0' 0",
        "printf '# branch.oid %040d\\0001 .M N...\\0' 0",
    ],
)
def test_a_git_that_does_not_answer_as_git_does_makes_nothing_clean(
    repo: Path, tmp_path: Path, script: str
) -> None:
    assert state(repo, fake_git(tmp_path, script)) == unasked(repo)


def test_a_git_that_prints_without_end_is_stopped(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mfm_ops.sdk.asking.MAX_ANSWER_BYTES", 1 << 20)
    assert state(repo, fake_git(tmp_path, "exec yes")) == unasked(repo)


def test_a_git_that_hangs_is_asked_once_and_leaves_nothing(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mfm_ops.sdk.git._TIMEOUT_S", 0.3)
    pids = tmp_path / "pids"
    environ = fake_git(tmp_path, f"sleep 60 & echo $! >>{pids}; sleep 60")
    probe, repository = GitProbe(environ), find_repository(repo)
    assert repository is not None
    assert probe.look(repository) == unasked(repo)
    assert probe.letters(repository, ["plain/b.txt"]) is None
    (pid,) = pids.read_text().split()
    deadline = time.monotonic() + 120
    while lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lives(pid: str) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_directory_called_git_on_the_search_path_is_passed_over(
    repo: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin" / "git").mkdir(parents=True)
    environ = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    assert state(repo, environ).dirty is False


def test_a_repository_without_a_commit_has_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "fresh")
    assert state(tmp_path / "fresh") == GitState(None, dirty=False)
    assert unasked(tmp_path / "fresh") == GitState(None, None)


def test_a_sha256_repository_has_its_long_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--object-format=sha256", "long")
    top = tmp_path / "long"
    git(top, "commit", "--quiet", "--allow-empty", "--message=one")
    commit = git(top, "rev-parse", "HEAD")
    assert len(commit) == 64
    assert state(top) == GitState(commit, dirty=False)
    assert unasked(top).commit == commit


def test_a_worktree_has_its_own_head_and_shares_refs(repo: Path, tmp_path: Path) -> None:
    git(repo, "branch", "side")
    git(repo, "worktree", "add", "--quiet", str(tmp_path / "side"), "side")
    (tmp_path / "side" / "plain" / "b.txt").write_text("side\n")
    git(tmp_path / "side", "commit", "--quiet", "--all", "--message=two")
    commit = git(tmp_path / "side", "rev-parse", "HEAD")
    assert commit != git(repo, "rev-parse", "HEAD")
    assert state(tmp_path / "side" / "plain") == GitState(commit, dirty=False)
    assert unasked(tmp_path / "side").commit == commit
    git(repo, "pack-refs", "--all")
    assert unasked(tmp_path / "side").commit == commit


def test_a_submodule_is_a_repository_of_its_own(repo: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "outer")
    outer = tmp_path / "outer"
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repo), "sub")
    git(outer, "commit", "--quiet", "--message=with a submodule")
    assert state(outer / "sub") == state(repo)
    assert unasked(outer / "sub").commit == state(repo).commit
    git(outer / "sub", "commit", "--quiet", "--allow-empty", "--message=moved")
    assert state(outer).dirty is True


def test_a_bare_repository_is_no_workspace(repo: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(repo), "bare.git")
    assert find_repository(tmp_path / "bare.git") is None
    assert find_repository(tmp_path / "bare.git" / "refs") is None


def test_outside_a_repository_there_is_none(tmp_path: Path) -> None:
    assert find_repository(tmp_path) is None
    assert collect_workspace(tmp_path, (), os.environ) is None


def test_a_broken_git_directory_does_not_answer_for_the_repository_above(repo: Path) -> None:
    inner = repo / "plain" / ".git"
    for name in ("objects", "refs"):
        (inner / name).mkdir(parents=True)
    (inner / "HEAD").write_text("nonsense\n")
    assert state(repo / "plain") == GitState(None, None)


@pytest.mark.parametrize(
    "head",
    ["", "nonsense", "ref: ../../secret", "ref: refs/heads/../../../x", "ref: HEAD", "0" * 39],
)
def test_a_strange_head_is_no_commit(repo: Path, head: str) -> None:
    (repo / ".git" / "HEAD").write_text(head)
    assert unasked(repo).commit is None


def test_references_in_a_circle_are_no_commit(repo: Path) -> None:
    (repo / ".git" / "HEAD").write_text("ref: refs/heads/a")
    (repo / ".git" / "refs" / "heads" / "a").write_text("ref: refs/heads/a")
    assert unasked(repo).commit is None


def test_a_git_directory_of_pipes_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    os.mkfifo(tmp_path / "x" / ".git")
    assert find_repository(tmp_path / "x") is None


def test_a_repository_is_looked_at_once(repo: Path) -> None:
    probe, repository = GitProbe(os.environ), find_repository(repo)
    assert repository is not None
    first = probe.look(repository)
    (repo / "plain" / "b.txt").write_text("changed\n")
    assert probe.look(repository) == first


def test_what_changed_is_named_with_what_changed(repo: Path) -> None:
    git(repo, "mv", "plain/b.txt", "plain/a name")
    (repo / "flake.lock").write_text("[]\n")
    (repo / "web" / "new").write_text("")
    git(repo, "add", "web/new")
    assert dict(state(repo).changes) == {
        "plain/a name": "R.",
        "flake.lock": ".M",
        "web/new": "A.",
    }


def test_letters_tell_what_git_tracks(repo: Path) -> None:
    probe, repository = GitProbe(os.environ), find_repository(repo)
    assert repository is not None
    (repo / "untracked").write_text("")
    git(repo, "update-index", "--assume-unchanged", "plain/b.txt")
    names = ["flake.lock", "plain/b.txt", "untracked", "*.lock"]
    assert probe.letters(repository, names) == {"flake.lock": "H", "plain/b.txt": "h"}
    assert GitProbe({"PATH": "/nonexistent"}).letters(repository, names) is None


def test_a_status_with_only_headers_is_clean() -> None:
    oid = b"a" * 40
    assert parse_status(b"# branch.oid " + oid + b"\0# branch.head main\0") == GitState(
        oid.decode(), dirty=False
    )


# --- what a hostile repository cannot make git do ------------------------------------------------


def canary(tmp_path: Path) -> tuple[Path, str]:
    mark = tmp_path / "ran"
    script = tmp_path / "evil"
    script.write_text(f"#!/bin/sh\ntouch '{mark}'\ncat\n")
    script.chmod(0o755)
    return mark, str(script)


def test_a_file_system_monitor_is_not_run(repo: Path, tmp_path: Path) -> None:
    mark, script = canary(tmp_path)
    git(repo, "config", "core.fsmonitor", script)
    assert state(repo).dirty is False
    assert not mark.exists()


@pytest.mark.parametrize("key", ["clean", "process"])
@pytest.mark.parametrize("name", ["evil", "a=b", 'q"uo\\te', "with.dots"])
def test_a_content_filter_is_not_run(repo: Path, tmp_path: Path, key: str, name: str) -> None:
    mark, script = canary(tmp_path)
    (repo / ".git" / "info" / "attributes").write_text(f"*.txt filter={name}\n")
    git(repo, "config", f"filter.{name}.{key}", script)
    git(repo, "config", f"filter.{name}.required", "true")
    (repo / "plain" / "b.txt").write_text("x\n")
    assert state(repo).dirty is True
    assert not mark.exists()


@pytest.mark.parametrize("section", ["[include]", '[includeIf "gitdir:**"]'])
def test_a_content_filter_from_an_included_file_is_not_run(
    repo: Path, tmp_path: Path, section: str
) -> None:
    mark, script = canary(tmp_path)
    (repo / ".git" / "info" / "attributes").write_text("*.txt filter=evil\n")
    (tmp_path / "more").write_text(f'[filter "evil"]\n\tclean = {script}\n')
    with (repo / ".git" / "config").open("a") as config:
        config.write(f"{section}\n\tpath = {tmp_path / 'more'}\n")
    (repo / "plain" / "b.txt").write_text("x\n")
    assert state(repo).dirty is True
    assert not mark.exists()


def test_a_git_in_the_working_tree_is_not_run(repo: Path, tmp_path: Path) -> None:
    mark, script = canary(tmp_path)
    shutil.copy(script, repo / "git")
    assert state(repo, {"PATH": f".:{repo.name}::{os.environ['PATH']}"}).dirty is False
    assert not mark.exists()


def test_git_variables_of_the_caller_do_not_move_the_repository(repo: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "other")
    environ = {**os.environ, "GIT_DIR": str(tmp_path / "other" / ".git")}
    assert state(repo, environ) == GitState(git(repo, "rev-parse", "HEAD"), dirty=False)


def test_the_files_that_are_compared_are_those_of_the_repository(
    repo: Path, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "--quiet", str(repo), "pristine")
    git(repo, "config", "core.worktree", str(tmp_path / "pristine"))
    (repo / "plain" / "b.txt").write_text("changed\n")
    assert state(repo).dirty is True


def test_looking_does_not_write_into_the_repository(repo: Path) -> None:
    os.utime(repo / "plain" / "b.txt", (1, 1))
    before = (repo / ".git" / "index").read_bytes()
    state(repo)
    assert (repo / ".git" / "index").read_bytes() == before


# --- the workspace -------------------------------------------------------------------------------


def test_two_clones_in_different_places_and_homes_give_one_id(repo: Path, tmp_path: Path) -> None:
    ids = set()
    for name in ("one", "two/deeper"):
        git(tmp_path, "clone", "--quiet", str(repo), name)
        environ = {**os.environ, "HOME": str(tmp_path / name / "home"), "USER": name}
        for sub in (".", "plain"):
            workspace = collect_workspace(tmp_path / name / sub, ("LC_ALL",), environ)
            assert workspace is not None
            ids.add(artifact_id_for_json(workspace.model_dump(mode="json")))
    assert len(ids) == 1


def test_nothing_of_place_home_or_host_is_in_the_workspace(repo: Path, tmp_path: Path) -> None:
    (repo / "plain" / "b.txt").write_text("dirty\n")
    workspace = collect_workspace(repo / "web", (), os.environ)
    assert workspace is not None
    text = workspace.model_dump_json()
    for private in (str(tmp_path), os.environ["HOME"], os.uname().nodename):
        assert private not in text


def test_lock_files_count_at_the_top_and_down_to_the_working_directory(repo: Path) -> None:
    top = hashlib.sha256(b"{}\n").hexdigest()
    web = hashlib.sha256(b"[]\n").hexdigest()
    expected = {
        ".": {"flake.lock": top},
        "plain": {"flake.lock": top},
        "web": {"flake.lock": top, "web/package-lock.json": web},
        "web/src": {"flake.lock": top, "web/package-lock.json": web},
    }
    for sub, hashes in expected.items():
        workspace = collect_workspace(repo / sub, (), os.environ)
        assert workspace is not None
        assert workspace.lock_hashes == hashes


def test_a_working_directory_reached_by_a_link_is_the_real_one(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(repo / "web")
    assert collect_workspace(tmp_path / "link", (), os.environ) == collect_workspace(
        repo / "web", (), os.environ
    )


def test_only_allowlisted_variables_that_are_set_are_kept(repo: Path) -> None:
    environ = {**os.environ, "B": "2", "A": "", "SECRET": "x"}
    workspace = collect_workspace(repo, ("B", "A", "UNSET"), environ)
    assert workspace is not None
    assert workspace.env == {"A": "", "B": "2"}


def test_variables_are_kept_outside_a_repository_too(tmp_path: Path) -> None:
    workspace = collect_workspace(tmp_path, ("A",), {"A": "1"})
    assert workspace is not None
    assert workspace.model_dump(mode="json") == {"env": {"A": "1"}}


def test_a_variable_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsFailure) as caught:
        collect_workspace(tmp_path, ("A",), {"A": "caf\udce9"})
    assert caught.value.info.details["key"] == "A"


def test_the_names_of_lock_files_are_sorted_and_unique() -> None:
    assert list(LOCK_FILES) == sorted(set(LOCK_FILES))


def test_what_is_no_readable_file_is_no_lock_file(tmp_path: Path) -> None:
    (tmp_path / "flake.lock").mkdir()
    os.mkfifo(tmp_path / "uv.lock")
    (tmp_path / "yarn.lock").symlink_to("yarn.lock")
    (tmp_path / "go.sum").write_bytes(b"")
    assert lock_hashes(tmp_path, [tmp_path]) == {"go.sum": hashlib.sha256(b"").hexdigest()}


# --- the build -----------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The package directory of an mfm installed into a repository that is not its own."""
    site = tmp_path / "project" / ".venv" / "site-packages"
    (site / "mfm_ops").mkdir(parents=True)
    git(tmp_path, "init", "--quiet", "project")
    return site / "mfm_ops"


def test_an_installed_mfm_is_not_the_repository_that_it_is_installed_in(installed: Path) -> None:
    build = collect_build((), os.environ, package=installed)
    assert (build.git_commit, build.dirty, build.lock_hashes) == (None, None, None)
    assert build.mfm_version == __version__


def test_a_checkout_has_commit_and_lock_hashes(repo: Path) -> None:
    (repo / "mfm_ops").mkdir()
    (repo / "pyproject.toml").write_text('[project]\nname = "mfm-ops"\n')
    build = collect_build((), os.environ, package=repo / "mfm_ops")
    flake_lock = hashlib.sha256(b"{}\n").hexdigest()
    assert build.git_commit == git(repo, "rev-parse", "HEAD")
    assert build.dirty is False
    assert build.flake_lock_hash == flake_lock
    assert build.lock_hashes == {"flake.lock": flake_lock}


def test_a_checkout_inside_another_project_is_not_that_project(repo: Path) -> None:
    vendored = repo / "vendor"
    (vendored / "mfm_ops").mkdir(parents=True)
    (vendored / "pyproject.toml").write_text('[project]\nname = "mfm-ops"\n')
    assert collect_build((), os.environ, package=vendored / "mfm_ops").git_commit is None


def test_a_baked_build_speaks_for_itself(installed: Path) -> None:
    (installed / BAKED_BUILD_NAME).write_text(
        '{"git_commit": "' + "a" * 40 + '", "dirty": false, "flake": {"rev": "' + "a" * 40 + '"}}'
    )
    build = collect_build(("LANG", "LANG"), os.environ, package=installed)
    assert build.git_commit == "a" * 40
    assert build.flake is not None
    assert build.env_allowlist == ("LANG",)
    assert build.mfm_version == __version__


@pytest.mark.parametrize("text", ["", "[]", "{", '{"commit": "x"}', '{"dirty": 1}'])
def test_an_unreadable_baked_build_is_refused(installed: Path, text: str) -> None:
    (installed / BAKED_BUILD_NAME).write_text(text)
    with pytest.raises(SettingsFailure) as caught:
        collect_build((), os.environ, package=installed)
    assert caught.value.info.code == "settings_invalid"


def test_this_mfm_knows_its_place() -> None:
    top = checkout_top()
    assert top is not None
    assert (top / "tests" / "unit" / "test_provenance.py").is_file()


def test_a_target_is_named_as_rust_names_it() -> None:
    assert target_triple("aarch64-linux-gnu") == "aarch64-unknown-linux-gnu"
    assert target_triple("", "x86_64").startswith("x86_64-unknown-linux-")


def test_build_and_workspace_in_one_repository_agree() -> None:
    top = checkout_top()
    assert top is not None
    build, workspace = collect_provenance(top, (), os.environ)
    repository = find_repository(top)
    if repository is not None:
        assert workspace is not None
        assert (build.git_commit, build.dirty) == (workspace.git_commit, workspace.dirty)
        assert build.git_commit == head_commit(repository)
