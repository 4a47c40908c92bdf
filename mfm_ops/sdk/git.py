"""Which commit a directory stands at, and whether its tracked files differ from it.

One `git` process a repository, told to run nothing that the repository itself configures; without
a usable git the commit is read from the files. What goes into a manifest is left to `provenance`.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from mfm_ops.sdk.files import read_regular

__all__ = ["GitProbe", "GitState", "Repository", "find_repository", "head_commit", "parse_status"]

_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FILTER_SECTION: Final = re.compile(
    rb'\[\s*filter\s*(?:\.([^\]\s"]+)|"((?:[^"\\\n]|\\.)*)")', re.IGNORECASE
)
_INCLUDE_SECTION: Final = re.compile(rb"\[\s*include", re.IGNORECASE)
_MAX_REF_BYTES: Final = 4096
_MAX_CONFIG_BYTES: Final = 1 << 20
_MAX_PACKED_REFS_BYTES: Final = 64 << 20
_MAX_SYMBOLIC_REFS: Final = 5
_TIMEOUT_S: Final = 10

# Nothing that a repository's own configuration names is run: no file-system monitor, no hook, no
# fetching of missing objects. A submodule's working tree, which has a configuration of its own,
# is not entered: its commit is compared, its files are not.
_GIT: Final = (
    "--no-pager",
    "--no-optional-locks",
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "protocol.allow=never"),
)
_STATUS: Final = (
    "status",
    "--porcelain=v2",
    "--branch",
    "--no-ahead-behind",
    "--untracked-files=no",
    "--ignore-submodules=dirty",
    "-z",
)
_LOCAL_FILTERS: Final = (
    *("config", "--local", "--includes", "-z", "--name-only", "--get-regexp"),
    r"^filter\.",
)


class Repository(NamedTuple):
    """A working tree: its top, its own git directory, and the one that its refs are shared in."""

    top: Path
    git_dir: Path
    common_dir: Path


class GitState(NamedTuple):
    """The commit, None before the first; `dirty` is None where git could not be asked.

    Untracked files make nothing dirty, as in `git describe --dirty` and in Nix.
    """

    commit: str | None
    dirty: bool | None


def find_repository(start: Path, *, upwards: bool = True) -> Repository | None:
    """The working tree that holds the directory `start`; None outside one, and in a bare one."""
    for directory in (start, *start.parents) if upwards else (start,):
        git_dir = _git_dir_of(directory)
        if git_dir is not None:
            return Repository(directory, git_dir, _common_dir(git_dir))
        if _is_git_dir(directory):
            return None
    return None


def head_commit(repository: Repository) -> str | None:
    """The commit that HEAD names, from loose and packed refs; None when there is none yet."""
    name = "HEAD"
    for _ in range(_MAX_SYMBOLIC_REFS):
        value = _read_ref(repository, name)
        if not value.startswith("ref:"):
            return value if _COMMIT.fullmatch(value) else None
        name = value.removeprefix("ref:").strip()
        if not name.startswith("refs/") or ".." in name or "\0" in name:
            return None
    return None


def parse_status(output: bytes) -> GitState:
    """What `git status --porcelain=v2 --branch -z` says."""
    commit: str | None = None
    dirty = False
    for line in output.split(b"\0"):
        if line.startswith(b"# branch.oid "):
            oid = line.rpartition(b" ")[2].decode("ascii", "replace")
            commit = oid if _COMMIT.fullmatch(oid) else None
        elif line and not line.startswith(b"# "):
            dirty = True
    return GitState(commit, dirty)


class GitProbe:
    """Looks at repositories, at each once. `environ` is where git and its user's settings are."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {
            **{name: environ[name] for name in ("HOME", "XDG_CONFIG_HOME") if name in environ},
            "PATH": environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
        }
        self._program = _find_git(self._environ["PATH"])
        self._seen: dict[Path, GitState] = {}

    def look(self, repository: Repository) -> GitState:
        """The state of `repository`; never fails, says None of what cannot be known."""
        if repository.top not in self._seen:
            self._seen[repository.top] = self._look(repository)
        return self._seen[repository.top]

    def _look(self, repository: Repository) -> GitState:
        filters = self._filters(repository)
        output = None if filters is None else self._git(repository, _STATUS, filters)
        if output is None:
            return GitState(head_commit(repository), None)
        return parse_status(output)

    def _filters(self, repository: Repository) -> list[str] | None:
        """The content filters that the repository defines: `git status` would run them."""
        names: set[bytes] = set()
        for path in (repository.common_dir / "config", repository.git_dir / "config.worktree"):
            config = read_regular(path, _MAX_CONFIG_BYTES) or b""
            for dotted, quoted in _FILTER_SECTION.findall(config):
                names.add(dotted.lower() or re.sub(rb"\\(.)", rb"\1", quoted))
            if _INCLUDE_SECTION.search(config):
                listed = self._git(repository, _LOCAL_FILTERS, (), ok=(0, 1))
                if listed is None:
                    return None
                keys = (key for key in listed.split(b"\0") if key)
                names.update(key.partition(b".")[2].rpartition(b".")[0] for key in keys)
        return sorted(map(os.fsdecode, names))

    def _git(
        self,
        repository: Repository,
        arguments: tuple[str, ...],
        filters: tuple[str, ...] | list[str],
        ok: tuple[int, ...] = (0,),
    ) -> bytes | None:
        if self._program is None:
            return None
        # Loaded only here: an installed mfm outside any repository never needs it.
        import subprocess

        # By the environment, since a name with `=` in it cannot be given to `-c`.
        switched_off = [
            (f"filter.{name}.{key}", value)
            for name in filters
            for key, value in (("clean", ""), ("process", ""), ("required", "false"))
        ]
        environ = {
            **self._environ,
            # A broken `.git` here must not make git answer for a repository further up.
            "GIT_CEILING_DIRECTORIES": str(repository.top.parent),
            "GIT_CONFIG_COUNT": str(len(switched_off)),
        }
        for index, (key, value) in enumerate(switched_off):
            environ[f"GIT_CONFIG_KEY_{index}"] = key
            environ[f"GIT_CONFIG_VALUE_{index}"] = value
        try:
            done = subprocess.run(
                [self._program, *_GIT, *arguments],
                check=False,
                cwd=repository.top,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_TIMEOUT_S,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode in ok else None


def _find_git(search_path: str) -> str | None:
    for directory in search_path.split(os.pathsep):
        # A relative entry would let the repository bring a git of its own.
        if directory.startswith("/"):
            program = f"{directory}/git"
            if os.access(program, os.X_OK):
                return program
    return None


def _git_dir_of(directory: Path) -> Path | None:
    entry = directory / ".git"
    if _is_git_dir(entry):
        return entry
    # A worktree or a submodule: a file that says where.
    pointer = _read_text(entry)
    if not pointer.startswith("gitdir:"):
        return None
    git_dir = directory / pointer.removeprefix("gitdir:").strip()
    return git_dir if (git_dir / "HEAD").is_file() else None


def _is_git_dir(directory: Path) -> bool:
    return (
        (directory / "HEAD").is_file()
        and (directory / "objects").is_dir()
        and (directory / "refs").is_dir()
    )


def _common_dir(git_dir: Path) -> Path:
    pointer = _read_text(git_dir / "commondir")
    return git_dir / pointer if pointer else git_dir


def _read_ref(repository: Repository, name: str) -> str:
    # HEAD and a few refs are a worktree's own; all others are shared.
    for place in dict.fromkeys((repository.git_dir, repository.common_dir)):
        value = _read_text(place / name)
        if value:
            return value
    packed = read_regular(repository.common_dir / "packed-refs", _MAX_PACKED_REFS_BYTES) or b""
    found = re.search(
        rb"^([0-9a-f]+) " + re.escape(os.fsencode(name)) + rb"$", packed, re.MULTILINE
    )
    return found.group(1).decode() if found else ""


def _read_text(path: Path) -> str:
    return os.fsdecode(read_regular(path, _MAX_REF_BYTES) or b"").strip()
