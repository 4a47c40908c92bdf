"""What this installation of mfm is: version, target, checkout, the build that was baked in.

Cheap on purpose: the standard library's reader of package metadata alone costs 30 ms.
"""

import os
import re
import sys
from pathlib import Path
from typing import Final

from mfm_ops.sdk.files import read_regular

__all__ = ["BAKED_BUILD_NAME", "PACKAGE", "checkout_top", "mfm_version", "target_triple"]

PACKAGE: Final = Path(__file__).resolve().parent.parent
"""The directory of the package `mfm_ops`."""

BAKED_BUILD_NAME: Final = "_build.json"
"""A file in the package that a packager writes: fields of `BuildProvenance`."""

_MAX_BYTES: Final = 1 << 20
_PROJECT_NAME: Final = re.compile(r'^name = "mfm-ops"$', re.MULTILINE)
_PROJECT_VERSION: Final = re.compile(r'^version = "([^"]+)"$', re.MULTILINE)


def checkout_top(package: Path = PACKAGE) -> Path | None:
    """The top of mfm's own source tree when it runs from there, rather than installed."""
    return package.parent if _PROJECT_NAME.search(_pyproject(package)) else None


def mfm_version(package: Path = PACKAGE) -> str | None:
    """The version, from the source tree or from the name of the installed metadata.

    >>> mfm_version() is not None
    True
    """
    if checkout_top(package) is not None:
        found = _PROJECT_VERSION.search(_pyproject(package))
        return found.group(1) if found else None
    installed = sorted(package.parent.glob("mfm_ops-*.dist-info"))
    return installed[0].name.split("-")[1].removesuffix(".dist") if installed else None


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


def _pyproject(package: Path) -> str:
    data = read_regular(package.parent / "pyproject.toml", _MAX_BYTES) or b""
    return data.decode("utf-8", "replace")
