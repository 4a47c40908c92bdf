"""What this installation of mfm is: where it lies, whether made by Nix, for which target.

What else is known of the build is left to `provenance`.
"""

import os
import re
import sys
from pathlib import Path
from typing import Final

from mfm_ops.machine.config import RunsFrom
from mfm_ops.sdk.files import read_regular

__all__ = ["BAKED_BUILD_NAME", "PACKAGE", "checkout_top", "runs_from", "target_triple"]

PACKAGE: Final = Path(__file__).parent.parent
"""The directory of the package `mfm_ops`."""

BAKED_BUILD_NAME: Final = "_build.json"
"""A file in the package that a packager writes: fields of `BuildProvenance`."""

_NIX_STORE: Final = Path("/nix/store")
_MAX_BYTES: Final = 1 << 20
_PROJECT_NAME: Final = re.compile(rb'^name = "mfm-ops"$', re.MULTILINE)


def checkout_top(package: Path = PACKAGE) -> Path | None:
    """The top of mfm's own source tree when it runs from there, rather than installed."""
    data = read_regular(package.parent / "pyproject.toml", _MAX_BYTES) or b""
    return package.parent if _PROJECT_NAME.search(data) else None


def runs_from(package: Path = PACKAGE) -> RunsFrom:
    """Where the code that runs lies; what is in the Nix store is that, a source tree too."""
    if package.resolve().is_relative_to(_NIX_STORE):
        return RunsFrom.nix_store
    return RunsFrom.installed if checkout_top(package) is None else RunsFrom.checkout


def target_triple(multiarch: str | None = None, machine: str | None = None) -> str:
    """The platform as Rust names it; by default the one that this Python was built for.

    >>> target_triple("x86_64-linux-gnu"), target_triple("", "riscv64")[:22]
    ('x86_64-unknown-linux-gnu', 'riscv64-unknown-linux-')
    """
    if multiarch is None:
        multiarch = str(getattr(sys.implementation, "_multiarch", ""))
    if multiarch.count("-") == 2:
        arch, system, abi = multiarch.split("-")
        return f"{arch}-unknown-{system}-{abi}"
    # Some builds of Python do not know; then the C library does.
    try:
        abi = "gnu" if os.confstr("CS_GNU_LIBC_VERSION") else "musl"
    except (OSError, ValueError):
        abi = "musl"
    return f"{machine or os.uname().machine}-unknown-linux-{abi}"
