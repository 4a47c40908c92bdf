"""What is asked of Nix itself: its version, and whether a flake's lock covers its inputs.

Only runs that use Nix, and starts that demand a locked workspace, ask. Resolving and running apps
is left to the transports.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from mfm_ops.sdk.asking import ask
from mfm_ops.sdk.files import find_program

__all__ = ["lock_covers_inputs", "nix_system", "nix_version", "version_in_path"]

_IN_STORE: Final = re.compile(
    r"/nix/store/[0-9a-df-np-sv-z]{32}-nix(?:-cli)?-([0-9][0-9A-Za-z.+_-]*)/bin/nix"
)
_PRINTED: Final = re.compile(r"\) ([0-9][0-9A-Za-z.+_-]*)\s*")
_VERSION_TIMEOUT_S: Final = 10
_METADATA_TIMEOUT_S: Final = 60
_FLAKES: Final = ("--extra-experimental-features", "nix-command flakes")
# Neither the network nor the flake's own settings have a say in what its lock covers.
_CLOSED: Final = (
    "--offline",
    *("--option", "accept-flake-config", "false"),
    *("--option", "allow-import-from-derivation", "false"),
    *("--option", "use-registries", "false"),
    *("--option", "warn-dirty", "false"),
)


def nix_version(environ: Mapping[str, str]) -> str | None:
    """The version of the `nix` on the search path; None where there is none that answers.

    A Nix that lies in its own store says so by the name of its path, without being started.
    """
    program = find_program("nix", environ.get("PATH", os.defpath))
    if program is None:
        return None
    named = version_in_path(os.path.realpath(program))
    if named is not None:
        return named
    said = _answer([program, "--version"], environ, _VERSION_TIMEOUT_S)
    printed = None if said is None else _PRINTED.search(said.decode("utf-8", "replace"))
    return printed[1] if printed else None


def version_in_path(program: str) -> str | None:
    """The version in the name of a Nix that lies in its own store.

    >>> version_in_path("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nix-2.31.2/bin/nix")
    '2.31.2'
    """
    found = _IN_STORE.fullmatch(program)
    return found[1] if found else None


def nix_system() -> str:
    """This machine as Nix names it by default, such as `x86_64-linux`."""
    return f"{os.uname().machine}-linux"


def lock_covers_inputs(top: Path, directory: Path, environ: Mapping[str, str]) -> bool | None:
    """Whether flake.lock in `directory`, in the git repository `top`, covers its flake's inputs.

    None where there is no Nix to tell; what Nix refuses to read is not covered.
    """
    program = find_program("nix", environ.get("PATH", os.defpath))
    if program is None:
        return None
    relative = directory.relative_to(top).as_posix()
    where = f"?dir={quote(os.fsencode(relative))}" if relative != "." else ""
    reference = f"git+file://{quote(os.fsencode(top))}{where}"
    # The lock is not written, so whatever is not in it makes the command fail.
    command = [program, *_FLAKES, "flake", "metadata", "--json", "--no-update-lock-file"]
    return _answer([*command, *_CLOSED, reference], environ, _METADATA_TIMEOUT_S) is not None


def _answer(command: list[str], environ: Mapping[str, str], timeout_s: int) -> bytes | None:
    question = ask(command, environ, timeout_s)
    return None if question is None else question.answer()
