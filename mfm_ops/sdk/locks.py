"""The lock files of package managers: which there are, what they hash to, how git has them.

Asking git is left to `git`, what a manifest says of them to `provenance`.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from mfm_ops.machine.config import LockState
from mfm_ops.sdk.files import read_regular, written_path
from mfm_ops.sdk.git import GitProbe, Repository

__all__ = ["LOCK_FILES", "lock_hashes", "lock_state"]

LOCK_FILES: Final = (
    ".terraform.lock.hcl",
    "Cargo.lock",
    "Gemfile.lock",
    "MODULE.bazel.lock",
    "Package.resolved",
    "Pipfile.lock",
    "Podfile.lock",
    "buf.lock",
    "bun.lock",
    "bun.lockb",
    "cabal.project.freeze",
    "composer.lock",
    "conda-lock.yml",
    "deno.lock",
    "devbox.lock",
    "devenv.lock",
    "flake.lock",
    "go.sum",
    "go.work.sum",
    "gradle.lockfile",
    "mix.lock",
    "npins/sources.json",
    "npm-shrinkwrap.json",
    "package-lock.json",
    "packages.lock.json",
    "pdm.lock",
    "pixi.lock",
    "pnpm-lock.yaml",
    "poetry.lock",
    "pubspec.lock",
    "pylock.toml",
    "rebar.lock",
    "requirements-dev.lock",
    "requirements.lock",
    "stack.yaml.lock",
    "uv.lock",
    "yarn.lock",
)

_MAX_LOCK_BYTES: Final = 64 << 20


def lock_hashes(top: Path, directories: Iterable[Path]) -> dict[str, str]:
    """`{name relative to top: SHA-256 of its bytes}` of the lock files right in `directories`.

    What is no readable regular file of at most 64 MiB is left out.
    """
    hashes: dict[str, str] = {}
    for directory in directories:
        for name in LOCK_FILES:
            data = read_regular(directory / name, _MAX_LOCK_BYTES)
            if data is not None:
                relative = written_path((directory / name).relative_to(top))
                hashes[relative] = hashlib.sha256(data).hexdigest()
    return dict(sorted(hashes.items()))


def lock_state(repository: Repository | None, path: Path, probe: GitProbe) -> LockState:
    """How the lock file `path` stands against the commit of `repository`."""
    if not os.path.lexists(path):
        return LockState.missing
    # Behind a link may be anything, and git compares only where it points.
    if repository is None or path.is_symlink() or not path.is_file():
        return LockState.unknown
    name = path.relative_to(repository.top).as_posix()
    letters = probe.letters(repository, [name])
    state = probe.look(repository)
    if letters is None or state.dirty is None:
        return LockState.unknown
    letter, change = letters.get(name, ""), state.changes.get(name, "..")
    if not letter:
        return LockState.untracked
    if change[1] != ".":
        return LockState.modified
    if change[0] != ".":
        return LockState.staged
    # A file that git was told not to look at is never listed as changed.
    return LockState.committed if letter == "H" else LockState.unknown
