"""Whether a workspace is fit to run in: `--require-clean` and `--require-locked`.

Judges what the manifest will say, so that a run that was allowed says so itself. Looking is left
to `provenance`, `locks` and `nix`; docs/provenance.md has the definitions.
"""

from collections.abc import Mapping
from pathlib import Path

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import LockState, WorkspaceProvenance
from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.sdk.git import GitProbe, find_repository
from mfm_ops.sdk.locks import lock_state
from mfm_ops.sdk.nix import lock_covers_inputs

__all__ = ["require_clean", "require_locked"]


def require_clean(workspace: WorkspaceProvenance | None, cwd: Path) -> None:
    """Refuse what is not exactly a commit: no tracked file may differ from it.

    Raises:
        SettingsFailure: `workspace_dirty`; `reason` is `no_repository`, `no_commit`, `modified`,
            or `unknown` where git could not be asked.
    """
    if workspace is None or find_repository(cwd.resolve()) is None:
        reason = "no_repository"
    elif workspace.dirty is None:
        reason = "unknown"
    elif workspace.git_commit is None:
        reason = "no_commit"
    elif workspace.dirty:
        reason = "modified"
    else:
        return
    raise SettingsFailure(
        error_info("workspace_dirty", "the workspace is not a clean commit", reason=reason)
    )


def require_locked(
    workspace: WorkspaceProvenance | None, cwd: Path, probe: GitProbe, environ: Mapping[str, str]
) -> None:
    """Refuse what is not pinned: each lock file that counts must be as the commit holds it.

    There must be one; a flake needs its own, which must cover the flake's inputs if there is a
    Nix to tell. `workspace` and `probe` are those that the manifest is made from.

    Raises:
        SettingsFailure: `workspace_unlocked`; `reason` is `no_repository`, `no_lock`, `outdated`,
            or the state of the lock file `file`.
    """
    repository = find_repository(cwd.resolve())
    if workspace is None or repository is None:
        raise _unlocked("no_repository")
    flake = workspace.flake
    if flake is not None and flake.lock is not LockState.committed:
        raise _unlocked(str(flake.lock), _beside(flake.url, "flake.lock"))
    names = list(workspace.lock_hashes or ())
    if not names:
        raise _unlocked("no_lock")
    for name in names:
        state = lock_state(repository, repository.top / name, probe)
        if state is not LockState.committed:
            raise _unlocked(str(state), name)
    if flake is not None:
        directory = repository.top / (flake.url or ".")
        if lock_covers_inputs(repository.top, directory, environ) is False:
            raise _unlocked("outdated", _beside(flake.url, "flake.lock"))


def _beside(url: str | None, name: str) -> str:
    return (Path(url or ".") / name).as_posix()


def _unlocked(reason: str, file: str | None = None) -> SettingsFailure:
    details = {} if file is None else {"file": file}
    return SettingsFailure(
        error_info(
            "workspace_unlocked",
            "the workspace does not pin what it uses by committed lock files",
            reason=reason,
            **details,
        )
    )
