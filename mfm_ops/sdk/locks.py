"""The lock files of package managers: which there are, and what they hash to."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from mfm_ops.sdk.files import read_regular

__all__ = ["LOCK_FILES", "lock_hashes"]

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
                relative = (directory / name).relative_to(top).as_posix()
                hashes[relative] = hashlib.sha256(data).hexdigest()
    return dict(sorted(hashes.items()))
