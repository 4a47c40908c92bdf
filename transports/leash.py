"""Holds what one process runs, so that nothing of it outlives it whenever it is killed.

What happens then is the guard's (`guard` for sandboxes, `nix_guard` for Nix), which runs as a
process of its own from the first time on.
"""

import os
import subprocess
import sys
import uuid
import weakref
from pathlib import Path

__all__ = ["Leash"]

_GUARD = str(Path(__file__).with_name("guard.py"))


class Leash:
    """`fd` is to be held open by all that is on the leash, and `mark` is what it is known by.

    In a sandbox both are for its launcher and init, and the mark is an argument. `guard` is the
    script that waits.

    Raises:
        OSError: the guard could not be started.
    """

    def __init__(self, guard: str = _GUARD) -> None:
        self.mark = f"mfm-{uuid.uuid4().hex}"
        owner_end, owner = os.pipe2(os.O_CLOEXEC)
        try:
            leash_end, self.fd = os.pipe2(os.O_CLOEXEC)
        except OSError:
            _close(owner_end, owner)
            raise
        weakref.finalize(self, _close, owner, self.fd)
        try:
            # Its parent ends once it stands by itself.
            subprocess.run(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    "-B",
                    guard,
                    self.mark,
                    f"{owner_end}",
                    f"{leash_end}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(owner_end, leash_end),
                env={},
                cwd="/",
                start_new_session=True,
                check=True,
            )
        except subprocess.SubprocessError as exc:
            raise OSError("the guard could not be started") from exc
        finally:
            _close(owner_end, leash_end)


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)
