"""Ends the Nix commands of a process that was killed before it could.

A script, started by `leash` as a process of its own. It waits for its owner's death; then it asks
the commands that bear the owner's mark to end, so that Nix cleans up its builders, and kills those
that do not. What a Nix daemon builds ends when its client does.

usage: nix_guard.py MARK OWNER_FD LEASH_FD
OWNER_FD and LEASH_FD are reading ends of pipes: the owner alone holds the first one's other end,
the owner and its commands the second's. MARK stands in the commands' environment.
"""

# Plain calls of os: pathlib knows no descriptors, and costs where this is called often.
# ruff: noqa: PTH123, PTH208

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator

__all__: list[str] = []

_ROUND_MS = 50
_ASKING_ROUNDS = 200
_ROUNDS = 1200


def _marked(mark: bytes) -> Iterator[int]:
    """The commands, without what they started: they are the leaders of their sessions."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/environ", "rb") as file:
                    marked = mark in file.read()
                if marked and os.getsid(int(name)) == int(name):
                    yield int(name)


def _below(root: int) -> list[int]:
    found, pending = [], [root]
    while pending:
        pid = pending.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as file:
                    children = [int(child) for child in file.read().split()]
                found += children
                pending += children
    return found


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _kill(pid: int) -> None:
    # Stopped, it starts no other meanwhile.
    _send(pid, signal.SIGSTOP)
    for child in _below(pid):
        _send(child, signal.SIGKILL)
    _send(pid, signal.SIGKILL)


def main() -> None:
    mark, owner, leash = os.fsencode(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # Nobody's child: whoever looks at the owner's children sees its programs alone.
    if os.fork():
        os._exit(0)
    while os.read(owner, 1):
        pass
    ended = select.poll()
    ended.register(leash, 0)
    asked: set[int] = set()
    for number in range(_ROUNDS):
        if ended.poll(0):
            return
        for pid in _marked(mark):
            if number >= _ASKING_ROUNDS:
                _kill(pid)
            elif pid not in asked:
                asked.add(pid)
                _send(pid, signal.SIGTERM)
        ended.poll(_ROUND_MS)


if __name__ == "__main__":
    main()
