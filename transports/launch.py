"""Builds the two commands that can start a program: the sandbox's, and the bare supervisor's.

Options travel in a sealed-off memory file, not on the command line, which every user of the host
can read. What is in the sandbox was decided by `sandbox` and `view`.
"""

import os
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson

from transports.bubblewrap import Bubblewrap
from transports.child import Command
from transports.leash import Leash
from transports.policy import ExecPolicy
from transports.program import PinnedProgram
from transports.sandbox import (
    MAX_ARGUMENTS,
    Mounts,
    encode_args,
    launcher_argv,
    sandbox_args,
)
from transports.seccomp import filter_program
from transports.view import Neighbours, ProgramView, host_mounts, program_view

__all__ = [
    "TooManyArgumentsError",
    "bare_command",
    "rlimits",
    "sandbox_command",
    "sandboxed_command",
]

_MIB = 1024 * 1024
_SUPERVISOR = str(Path(__file__).with_name("supervisor.py"))

MakeCommand = Callable[[int, int], Command]


class TooManyArgumentsError(ValueError):
    """The program's arguments and environment are more than the launcher takes."""


def rlimits(policy: ExecPolicy) -> tuple[tuple[int, int, int], ...]:
    """The policy's per-process limits as (resource, soft, hard). No process dumps core."""
    limits = [(resource.RLIMIT_CORE, 0, 0)]
    if policy.cpu_s is not None:
        # SIGXCPU at the limit, and SIGKILL a second later for those that ignore it.
        limits.append((resource.RLIMIT_CPU, policy.cpu_s, policy.cpu_s + 1))
    if policy.open_files is not None:
        limits.append((resource.RLIMIT_NOFILE, policy.open_files, policy.open_files))
    if policy.file_size_mb is not None:
        size = policy.file_size_mb * _MIB
        limits.append((resource.RLIMIT_FSIZE, size, size))
    return tuple(limits)


@contextmanager
def sandboxed_command(
    bubblewrap: Bubblewrap,
    policy: ExecPolicy,
    program: PinnedProgram,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    neighbours: Neighbours,
    leash: Leash | None = None,
) -> Iterator[MakeCommand]:
    """The command that runs `program` in the sandbox; valid inside the `with` block.

    Raises:
        TooManyArgumentsError: bubblewrap takes at most `MAX_ARGUMENTS`.
    """
    mounts = host_mounts(policy, program.roots)
    view = program_view(program, neighbours, mounts, bind_fd_supported=bubblewrap.bind_fd)
    with sandbox_command(bubblewrap, policy, mounts, view, argv=argv, env=env, leash=leash) as make:
        yield make


@contextmanager
def sandbox_command(
    bubblewrap: Bubblewrap,
    policy: ExecPolicy,
    mounts: Mounts,
    view: ProgramView,
    *,
    argv: Sequence[str],
    env: Mapping[str, str],
    leash: Leash | None = None,
) -> Iterator[MakeCommand]:
    """As `sandboxed_command`, for a view that the caller made."""
    refused = filter_program(os.uname().machine, network=policy.network)
    with _memory_file("mfm-sandbox") as options, _memory_file("mfm-filter") as filter_fd:
        if refused is not None:
            _fill(filter_fd, refused)

        def make(status_fd: int, gate_fd: int) -> Command:
            args = sandbox_args(
                policy,
                mounts,
                env,
                pinned=view.pinned,
                links=view.links,
                status_fd=status_fd,
                gate_fd=gate_fd,
                filter_fd=None if refused is None else filter_fd,
            )
            held = None if leash is None else (leash.mark, leash.fd)
            command = launcher_argv(bubblewrap.path, options, view.path, argv, held)
            if len(args) + len(command) > MAX_ARGUMENTS:
                raise TooManyArgumentsError
            _fill(options, encode_args(args))
            fds = [options, filter_fd]
            if view.pinned is not None:
                fds.append(view.pinned.fd)
            if leash is not None:
                fds.append(leash.fd)
            return Command(command, tuple(fds), "init")

        yield make


@contextmanager
def bare_command(
    policy: ExecPolicy, program: PinnedProgram, argv: Sequence[str], env: Mapping[str, str]
) -> Iterator[MakeCommand]:
    """The command that runs `program` without a sandbox, under `supervisor`."""
    with _memory_file("mfm-spec") as spec:

        def make(status_fd: int, gate_fd: int) -> Command:
            fields = {
                "argv": [program.requested, *argv],
                "env": dict(env),
                "script": program.script,
                "rlimits": [_within_ours(*limit) for limit in rlimits(policy)],
            }
            _fill(spec, orjson.dumps(fields))
            numbers = (str(fd) for fd in (status_fd, gate_fd, program.fd, spec))
            command = (sys.executable, "-I", "-S", "-B", _SUPERVISOR, *numbers)
            return Command(command, (program.fd, spec), "gate")

        yield make


def _within_ours(limit: int, soft: int, hard: int) -> tuple[int, int, int]:
    most = resource.getrlimit(limit)[1]
    return (limit, soft, hard) if most < 0 else (limit, min(soft, most), min(hard, most))


@contextmanager
def _memory_file(name: str) -> Iterator[int]:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _fill(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
