"""Ends the sandboxes of a process that was killed before it could.

A script, started by `leash` as a process of its own. bubblewrap dies with its parent, but while it
sets a sandbox up it does not yet take that along: what it left would run on, with no limit and no
deadline. So this waits for its owner's death and kills what bears the owner's mark, until nobody
holds the leash any more.

usage: guard.py MARK OWNER_FD LEASH_FD
OWNER_FD and LEASH_FD are reading ends of pipes: the owner alone holds the first one's other end,
the owner and the launchers of its sandboxes the second's.
"""

# Plain calls of os: pathlib knows no descriptors, and costs where this is called often.
# ruff: noqa: PTH123, PTH208

import contextlib
import os
import select
import signal
import sys

__all__: list[str] = []

_ROUND_MS = 5
_ROUNDS = 12_000


def _kill_marked(mark: bytes) -> None:
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    marked = mark in file.read().split(b"\0")
                if marked:
                    os.kill(int(name), signal.SIGKILL)


def main() -> None:
    mark, owner, leash = os.fsencode(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # Nobody's child: whoever looks at the owner's children sees its programs alone.
    if os.fork():
        os._exit(0)
    while os.read(owner, 1):
        pass
    ended = select.poll()
    ended.register(leash, 0)
    for _ in range(_ROUNDS):
        if ended.poll(0):
            return
        _kill_marked(mark)
        ended.poll(_ROUND_MS)


if __name__ == "__main__":
    main()
