"""The site's policy for flakes: which trees may be resolved, and with which Nix.

Pure data. Which flakes a run may name is its manifest's word, not the site's; what a resolved
program may do is `policy`'s.
"""

from typing import NamedTuple

from mfm_ops.machine.canonical import Json

__all__ = ["NixPolicy"]


class NixPolicy(NamedTuple):
    """`allow_dirty`: a git tree with uncommitted changes may be resolved, as unpinned.

    `require_locked_rev`: only what a version control's revision names may be. `program` is the
    absolute path of `nix`, None for the first on PATH.
    """

    allow_dirty: bool = False
    require_locked_rev: bool = False
    program: str | None = None

    def to_json(self) -> dict[str, Json]:
        """The policy as it is stored, a part of the site's."""
        return {
            "allow_dirty": self.allow_dirty,
            "require_locked_rev": self.require_locked_rev,
            "program": self.program,
        }
