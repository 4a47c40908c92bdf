"""Whether what a flake calls its app's program is one: before it is built, and after.

Looks at files of the Nix store, and starts nothing; what to do about it is `nix_resolver`'s.
"""

# Plain calls of os: pathlib resolves and normalises more than is wanted here.
# ruff: noqa: PTH115, PTH116

import os
import posixpath
import stat

from transports.nix_answers import EvaluatedApp, store_path_of
from transports.nix_failures import nix_failure

__all__ = ["built_path", "require_built", "require_program"]


def require_program(app: EvaluatedApp) -> None:
    """Refuse, before anything is built, what cannot be a program of the store.

    Raises:
        TransportFailure: `nix_eval_failed`.
    """
    if app.fault is not None:
        raise nix_failure(app.fault)
    if posixpath.normpath(app.program) != app.program:
        raise nix_failure("program_not_normal")
    if store_path_of(app.program) is None:
        raise nix_failure("program_outside_store")
    if not app.installables:
        raise nix_failure("context_missing")


def built_path(path: str) -> str:
    """The store path of what was realised: itself, or where the root for it leads.

    Raises:
        TransportFailure: `nix_unavailable`.
    """
    if store_path_of(path) == path:
        return path
    try:
        return os.readlink(path)
    except OSError:
        raise nix_failure("root_failed") from None


def require_built(program: str, built: tuple[str, ...]) -> tuple[str, str]:
    """The program's store path, which must have been built for it, and the one it leads to.

    Raises:
        TransportFailure: `nix_build_failed`.
    """
    store_path = store_path_of(program)
    if store_path is None or store_path not in built:
        raise nix_failure("context_wrong")
    try:
        info = os.stat(program)
    except FileNotFoundError:
        raise nix_failure("program_missing") from None
    except OSError:
        raise nix_failure("program_not_executable") from None
    leads_to = store_path_of(os.path.realpath(program))
    if leads_to is None:
        raise nix_failure("program_leaves_store")
    if not stat.S_ISREG(info.st_mode) or not os.access(program, os.X_OK):
        raise nix_failure("program_not_executable")
    return store_path, leads_to
