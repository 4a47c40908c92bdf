"""The site's policy: what may run, what it sees, how much it may use, which flakes it may be of.

Pure data with its rules. Where the values come from is the settings' business, enforcing them is
`sandbox`, `program` and `process_exec`.
"""

import posixpath
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple, get_args

from mfm_ops.machine.canonical import Json

__all__ = ["ExecPolicy", "NIX_STORE", "NixPolicy", "SandboxKind", "is_below", "is_utf8"]

SandboxKind = Literal["bubblewrap", "off"]

NIX_STORE = "/nix/store"

# The sandbox mounts its own there; a policy that names them could undo its privacy.
_RESERVED = ("/proc", "/dev")


def is_below(path: str, root: str) -> bool:
    """Whether normalised `path` is `root` or lies under it, by whole components.

    >>> is_below("/nix/store/x", "/nix/store"), is_below("/nix/storeevil/x", "/nix/store")
    (True, False)
    """
    return path == root or path.startswith(root if root.endswith("/") else root + "/")


@dataclass(frozen=True, slots=True)
class ExecPolicy:
    """What `exec` lets a program do (the contract, sections 8 and 10).

    Paths are absolute and normalised (a trailing slash is dropped). Nothing is visible in the
    sandbox but `read_only_paths`, `read_write_paths` and the allowed prefix that holds the
    program. A limit of None is no limit. `memory_mb` and `file_size_mb` are MiB; `cpu_s` holds
    for each process, `processes` counts processes and threads of the whole tree.

    Raises:
        ValueError: a path is relative, not normalised or reserved, or a limit is not positive.
    """

    allow_prefixes: tuple[str, ...] = (NIX_STORE + "/",)
    sandbox: SandboxKind = "bubblewrap"
    read_only_paths: tuple[str, ...] = ()
    read_write_paths: tuple[str, ...] = ()
    network: bool = False
    memory_mb: int | None = 4096
    processes: int | None = 512
    cpu_s: int | None = 3600
    open_files: int | None = 4096
    file_size_mb: int | None = 1024
    pass_stderr: bool = False

    def __post_init__(self) -> None:
        _require_kind(self.sandbox)
        for name in ("allow_prefixes", "read_only_paths", "read_write_paths"):
            object.__setattr__(self, name, tuple(_clean(name, p) for p in getattr(self, name)))
        for name in ("memory_mb", "processes", "cpu_s", "open_files", "file_size_mb"):
            limit = getattr(self, name)
            if limit is not None and (type(limit) is not int or not 0 < limit < 2**31):
                raise ValueError(f"{name} must be a positive integer")

    @property
    def may_have_effects(self) -> bool:
        """Whether a program run under this policy could change the world outside the sandbox."""
        return self.sandbox == "off" or self.network or bool(self.read_write_paths)

    def to_json(self) -> dict[str, Json]:
        """The policy as the JSON object that is stored and whose digest stands in every fact.

        `pass_stderr` is left out: showing a program's stderr changes nothing about the run.
        """
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name != "pass_stderr"
        }


class NixPolicy(NamedTuple):
    """How `nix.exec` resolves; which flakes a run may name is its manifest's word, not the site's.

    `allow_dirty`: a git tree with uncommitted changes may be resolved, as unpinned.
    `require_locked_rev`: only what a version control's revision names may be. `program` is the
    absolute path of `nix`, None for the first on PATH.
    """

    program: str | None = None
    allow_dirty: bool = False
    require_locked_rev: bool = False

    def to_json(self) -> dict[str, Json]:
        """The policy as the JSON object that is a part of the stored one."""
        return self._asdict()


def _require_kind(kind: str) -> None:
    if kind not in get_args(SandboxKind):
        raise ValueError("sandbox must be 'bubblewrap' or 'off'")


def is_utf8(path: str) -> bool:
    """Whether `path`, as Python decoded it, can be written down: JSON has nothing for the rest."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _clean(field: str, path: str) -> str:
    if "\0" in path or not path.startswith("/"):
        raise ValueError(f"{field} must hold absolute paths")
    if not is_utf8(path):
        raise ValueError(f"{field} must hold paths in UTF-8")
    clean = "/" + path.strip("/")
    # normpath would quietly turn "/a/../etc" into "/etc": say what you mean instead.
    if posixpath.normpath(clean) != clean:
        raise ValueError(f"{field} must hold normalised paths, without '.', '..' or '//'")
    if field != "allow_prefixes" and any(is_below(clean, root) for root in _RESERVED):
        raise ValueError(f"{field} must not name /proc or /dev: the sandbox has its own")
    return clean
