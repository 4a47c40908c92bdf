"""Runs one program where there is no sandbox, and takes its whole tree down with it.

A script, started by `process_exec` as a process of its own, that speaks the sandbox's protocol:
state as JSON documents on one descriptor, a gate on another. It is the subreaper of its program's
tree, so daemons come back to it; when the gate closes, because its parent says so or has died, it
kills them all. What no parent can do, it cannot either: a process that another service starts on
the program's behalf is not in the tree.

usage: supervisor.py STATUS_FD GATE_FD PROGRAM_FD SPEC_FD
SPEC_FD holds {"argv": [str], "env": {str: str}, "script": bool,
"rlimits": [[resource, soft, hard]]}.
"""

# Plain calls of os: pathlib knows no descriptors, and costs where this is called often.
# ruff: noqa: PTH123, PTH208

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
from typing import Any

__all__: list[str] = []

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_PDEATHSIG = 1
_KILL_ROUNDS = 100_000


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child)
            for task in os.listdir(f"/proc/{pid}/task")
            for child in open(f"/proc/{pid}/task/{task}/children").read().split()
        ]
    except OSError:
        return []


def _tree() -> list[int]:
    found, pending = [], [os.getpid()]
    while pending:
        children = _children(pending.pop())
        found += children
        pending += children
    return found


def _kill_tree(program: int) -> None:
    # A whole process group dies in one step, in which none of it can fork: what multiplies faster
    # than it can be listed is caught so, and only what made groups of its own is left to look for.
    groups, own = {program}, os.getpgrp()
    for _ in range(_KILL_ROUNDS):
        for group in groups - {own}:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        select.select([], [], [], 0.001)
        groups = set()
        for pid in _tree():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                groups.add(os.getpgid(pid))
                os.kill(pid, signal.SIGKILL)


def _reap_orphans(program: int) -> None:
    """Bury what came back to us dead. Not the program, whose number is needed to the end."""
    with contextlib.suppress(ChildProcessError):
        while end := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if end.si_pid == program:
                return
            os.waitpid(end.si_pid, os.WNOHANG)


def _start(spec: dict[str, Any], program_fd: int, failed: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # What becomes another user, as a setuid program does, could not be killed.
        prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        for limit, soft, hard in spec["rlimits"]:
            resource.setrlimit(limit, (soft, hard))
        # Through the descriptor: what was checked is what runs. A script's interpreter opens it
        # once more, so there it stays open across the exec.
        os.set_inheritable(program_fd, spec["script"])
        os.execve(  # noqa: S606 - no shell is what is wanted
            f"/proc/self/fd/{program_fd}",
            spec["argv"],
            spec["env"],
        )
    except OSError as exc:
        os.write(failed, str(exc.errno).encode())
    except ValueError:
        os.write(failed, str(errno.EINVAL).encode())
    finally:
        os._exit(127)


def main() -> None:
    status, gate, program_fd, spec_fd = map(int, sys.argv[1:5])
    for fd in (status, gate, program_fd):
        os.set_inheritable(fd, False)
    with open(spec_fd, "rb") as file:
        spec = json.loads(file.read())
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def tell(**document: int) -> None:
        # Who listened may be dead by now: the tree is to be ended all the same.
        with contextlib.suppress(BrokenPipeError):
            os.write(status, json.dumps(document).encode() + b"\n")

    tell(**{"child-pid": os.getpid()})
    if not os.read(gate, 1):
        return
    failure, failed = os.pipe()
    pid = _start(spec, program_fd, failed)
    os.close(failed)
    tell(**{"program-pid": pid})
    devnull = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(devnull, fd)
    reason = os.read(failure, 16)
    if reason:
        os.waitpid(pid, 0)
        tell(**{"exec-errno": int(reason)})
        return
    ended = os.pidfd_open(pid)
    poller = select.poll()
    poller.register(ended, select.POLLIN)
    poller.register(gate, 0)
    # Left where they are, they would count as processes of the program.
    signal.signal(signal.SIGCHLD, lambda *_: _reap_orphans(pid))
    _reap_orphans(pid)
    while not (events := dict(poller.poll())):
        pass
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if ended in events:
        # Not reaped yet: while it is there, its group's number is nobody else's.
        end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert end is not None
        code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        # Negative for a signal, unlike the sandbox's 128 + n, which a program can also return.
        tell(**{"exit-code": code})
    _kill_tree(pid)


if __name__ == "__main__":
    main()
