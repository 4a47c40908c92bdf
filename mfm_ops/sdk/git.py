"""Which commit a directory stands at, and which of its tracked files differ from it.

One `git status` a repository, and one listing beside it where files are asked for; told to run
nothing that the repository itself configures. Without a usable git the commit is read from the
files. What goes into a manifest is left to `provenance`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from mfm_ops.sdk.files import find_program, read_regular

if TYPE_CHECKING:
    from mfm_ops.sdk.asking import Question

__all__ = ["GitProbe", "GitState", "Repository", "find_repository", "head_commit", "parse_status"]

_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_NO_COMMIT: Final = "(initial)"
_FILTER_SECTION: Final = re.compile(
    rb'\[\s*filter\s*(?:\.([^\]\s"]+)|"((?:[^"\\\n]|\\.)*)")', re.IGNORECASE
)
_INCLUDE_SECTION: Final = re.compile(rb"\[\s*include", re.IGNORECASE)
_FIELDS_BEFORE_PATH: Final[Mapping[bytes, int]] = {b"1": 8, b"2": 9, b"u": 10}
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
    "--literal-pathspecs",
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
# With a letter for each: `H` is an ordinary tracked file, others are not looked at or unmerged.
_LISTING: Final = ("ls-files", "-v", "-z", "--")
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

    Untracked files make nothing dirty, as in `git describe --dirty` and in Nix. `changes` maps
    each tracked file that differs to git's two letters: index against commit, file against index.
    """

    commit: str | None
    dirty: bool | None
    changes: Mapping[str, str] = MappingProxyType({})


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


def parse_status(output: bytes) -> GitState | None:
    """What `git status --porcelain=v2 --branch -z` says; None where it is nothing that git says.

    Silence is no clean tree: git always names the commit, or that there is none yet.
    """
    oid: str | None = None
    changes: dict[str, str] = {}
    lines = iter(output.split(b"\0"))
    for line in lines:
        if line.startswith(b"# branch.oid "):
            oid = line.rpartition(b" ")[2].decode("ascii", "replace")
        elif line and not line.startswith(b"# "):
            # The path comes last, after as many fields as the kind has; it may hold spaces.
            before_path = _FIELDS_BEFORE_PATH.get(line.partition(b" ")[0], 0)
            fields = line.split(b" ", before_path)
            if len(fields) < 2 or len(fields) != before_path + 1:
                return None
            changes[os.fsdecode(fields[-1])] = fields[1].decode("ascii", "replace")
            if fields[0] == b"2":
                next(lines, None)  # where it was renamed from
    if oid is None or not (oid == _NO_COMMIT or _COMMIT.fullmatch(oid)):
        return None
    commit = None if oid == _NO_COMMIT else oid
    return GitState(commit, bool(changes), MappingProxyType(changes))


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
        self._program = find_program("git", self._environ["PATH"])
        self._seen: dict[Path, GitState] = {}
        self._letters: dict[Path, dict[str, str] | None] = {}

    def look(self, repository: Repository, names: Iterable[str] = ()) -> GitState:
        """The state of `repository`; never fails, says None of what cannot be known.

        `names` are files, relative to its top, that `letters` will be asked for: git is asked for
        both at once.
        """
        listing = self._begin_listing(repository, names)
        try:
            if repository.top not in self._seen:
                self._seen[repository.top] = self._look(repository)
        finally:
            self._end_listing(repository, listing)
        return self._seen[repository.top]

    def letters(self, repository: Repository, names: Iterable[str]) -> Mapping[str, str] | None:
        """Of the files `names` those that git tracks, with the letter of `git ls-files -v`.

        None where git could not be asked.
        """
        asked = tuple(names)
        self._end_listing(repository, self._begin_listing(repository, asked))
        known = self._letters.get(repository.top, {})
        return known and {name: known[name] for name in asked if known.get(name)}

    def _look(self, repository: Repository) -> GitState:
        filters = self._filters(repository)
        output = None if filters is None else self._git(repository, _STATUS, filters)
        told = None if output is None else parse_status(output)
        return told or GitState(head_commit(repository), None)

    def _begin_listing(
        self, repository: Repository, names: Iterable[str]
    ) -> tuple[Question | None, list[str]] | None:
        known = self._letters.setdefault(repository.top, {})
        new = [] if known is None else [name for name in names if name not in known]
        return (self._begin(repository, (*_LISTING, *new)), new) if new else None

    def _end_listing(
        self, repository: Repository, listing: tuple[Question | None, list[str]] | None
    ) -> None:
        if listing is None:
            return
        question, names = listing
        output = self._end(question)
        known = self._letters[repository.top]
        if output is None or known is None:
            self._letters[repository.top] = None
            return
        known.update(dict.fromkeys(names, ""))
        for line in output.split(b"\0"):
            if line:
                known[os.fsdecode(line[2:])] = chr(line[0])

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
        filters: Iterable[str] = (),
        ok: tuple[int, ...] = (0,),
    ) -> bytes | None:
        return self._end(self._begin(repository, arguments, filters), ok)

    def _begin(
        self, repository: Repository, arguments: tuple[str, ...], filters: Iterable[str] = ()
    ) -> Question | None:
        if self._program is None:
            return None
        # Loaded only here: an installed mfm outside any repository never needs it.
        from mfm_ops.sdk.asking import ask

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
            # Nor may its `core.worktree` have the files of another place looked at.
            "GIT_WORK_TREE": str(repository.top),
            "GIT_CONFIG_COUNT": str(len(switched_off)),
        }
        for index, (key, value) in enumerate(switched_off):
            environ[f"GIT_CONFIG_KEY_{index}"] = key
            environ[f"GIT_CONFIG_VALUE_{index}"] = value
        return ask([self._program, *_GIT, *arguments], environ, _TIMEOUT_S, repository.top)

    def _end(self, question: Question | None, ok: tuple[int, ...] = (0,)) -> bytes | None:
        """What git printed; None if it failed, took too long or never began."""
        if question is None:
            return None
        output = question.answer(ok)
        if question.timed_out:
            # A git that hangs would hang for each further question as well.
            self._program = None
        return output


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
