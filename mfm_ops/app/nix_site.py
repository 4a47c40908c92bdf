"""What this site gives Nix: its policy, environment, workspace, and where roots lie.

Resolving is left to `transports`, taking roots away to `nix_roots`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mfm_ops.app.nix_roots import roots_beside
from mfm_ops.sdk.git import find_repository
from transports.nix_refs import Workspace
from transports.nix_resolver import NixSite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mfm_ops.settings import Settings

__all__ = ["nix_site", "workspace_of"]


def nix_site(settings: Settings, environ: Mapping[str, str], cwd: Path) -> NixSite:
    """What `nix.exec` is given; looks at the directories above `cwd`."""
    return NixSite(
        policy=settings.nix_policy,
        environ=environ,
        roots=str(roots_beside(settings.require_store_path())),
        workspace=workspace_of(cwd),
    )


def workspace_of(cwd: Path) -> Workspace:
    """What `path:.` means to who stands in `cwd`: the nearest flake of the git tree, or its top.

    Outside of git it is `cwd` itself: what lies above may be anybody's.
    """
    # As git names it: a link may lead into a tree.
    here = Path(os.path.realpath(cwd))
    repository = find_repository(here)
    if repository is None:
        return Workspace(str(here), None)
    shallow = (repository.common_dir / "shallow").exists()
    for directory in (here, *here.parents):
        if (directory / "flake.nix").is_file() or directory == repository.top:
            return Workspace(str(directory), str(repository.top), shallow)
    raise AssertionError("the top of a tree lies above what is in it")
