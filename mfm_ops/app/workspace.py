"""What a run that starts says of mfm's build and of the workspace, and whether it may start there.

Looking takes one or two processes of git; it goes on while the caller imports what it runs with.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mfm_ops.machine.config import BuildProvenance, WorkspaceProvenance

    Provenance = tuple[BuildProvenance, WorkspaceProvenance | None]

__all__ = ["Provenance", "Requirements", "begin_look", "build_to_resume"]


class Requirements(NamedTuple):
    """What the workspace must be for a run to start; docs/provenance.md defines the words."""

    clean: bool = False
    locked: bool = False


def begin_look(
    cwd: Path,
    env_allowlist: tuple[str, ...],
    environ: Mapping[str, str],
    requirements: Requirements,
    *,
    uses_nix: bool,
) -> Callable[[], Provenance]:
    """Look in a thread; the function that is returned waits for it and gives what it found.

    Raises (the returned function):
        SettingsFailure: as `collect_provenance`, `require_clean`, `require_locked`.
    """
    found: list[Provenance] = []
    failed: list[BaseException] = []

    def look() -> None:
        try:
            found.append(_look(cwd, env_allowlist, environ, requirements, uses_nix))
        except BaseException as error:  # noqa: BLE001 - raised again by the one who waits
            failed.append(error)

    # Whoever is interrupted does not wait for a git that hangs.
    thread = threading.Thread(target=look, daemon=True)
    thread.start()

    def wait() -> Provenance:
        thread.join()
        if failed:
            raise failed[0]
        return found[0]

    return wait


def build_to_resume(build: BuildProvenance, started: BuildProvenance) -> BuildProvenance:
    """`build`, with the Nix that the run was started with where it names none itself.

    A resumed run may find all that it needs recorded, and must not start a Nix to say which.
    """
    if build.nix_version is not None:
        return build
    names = ("nix_version", "nix_system")
    return build.model_copy(update={name: getattr(started, name) for name in names})


def _look(
    cwd: Path,
    env_allowlist: tuple[str, ...],
    environ: Mapping[str, str],
    requirements: Requirements,
    uses_nix: bool,
) -> Provenance:
    from mfm_ops.sdk.git import GitProbe
    from mfm_ops.sdk.provenance import collect_provenance

    # One probe: what is required is what the manifest will say.
    probe = GitProbe(environ)
    build, workspace = collect_provenance(
        cwd, env_allowlist, environ, probe=probe, uses_nix=uses_nix
    )
    if any(requirements):
        from mfm_ops.sdk.requirements import require_clean, require_locked

        if requirements.clean:
            require_clean(workspace, cwd)
        if requirements.locked:
            require_locked(workspace, cwd, probe, environ)
    return build, workspace
