"""Pure: policy, program and what lies where → the bubblewrap command (the contract, section 8).

Nothing here touches the system. `view` looks at the host, `program` opens what runs, and
`process_exec` runs the command.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from transports.policy import ExecPolicy

__all__ = [
    "MAX_ARGUMENTS",
    "MEMORY_PLACES",
    "Mounts",
    "PRIVATE_DIR",
    "PRIVATE_TMP",
    "PinnedFile",
    "encode_args",
    "launcher_argv",
    "sandbox_args",
]

# Below the sandbox's own /dev, which becomes read-only: a place that is there whatever the policy
# binds, and where no process of the host can replace anything.
PRIVATE_DIR = "/dev/mfm"

# The sandbox's own, in its own mount namespace.
PRIVATE_TMP, _SHM = "/tmp", "/dev/shm"  # noqa: S108

# Where a program finds file systems in memory, each as large as the policy's memory limit.
MEMORY_PLACES = (PRIVATE_TMP, _SHM)

# bubblewrap refuses more than 9000 arguments, those of `--args` included.
MAX_ARGUMENTS = 9000

# As the program sees the process that is bubblewrap and holds it: not at all.
_INIT = "/proc/1"

_NOBODY = "65534"
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Mounts:
    """What of the host is to be seen: (source, destination) binds and (target, path) links."""

    read_only: tuple[str, ...] = ()
    read_write: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """The opened program, to be seen at `path` whatever happens to its own path meanwhile.

    With `copy` its bytes are copied, else the file is bound.
    """

    fd: int
    path: str
    copy: bool


def sandbox_args(
    policy: ExecPolicy,
    mounts: Mounts,
    env: Mapping[str, str],
    *,
    pinned: PinnedFile | None = None,
    links: Iterable[tuple[str, str]] = (),
    status_fd: int,
    gate_fd: int,
    filter_fd: int | None = None,
) -> tuple[str, ...]:
    """The options of one sandbox, without the program and its arguments.

    `links` are further (target, path) symbolic links, all below `PRIVATE_DIR`. The sandbox tells
    its state on `status_fd` as JSON documents and waits on `gate_fd` before it runs anything.
    `filter_fd` holds a seccomp filter.
    """
    args = [
        "--unshare-user",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
    ]
    if not policy.network:
        args.append("--unshare-net")
    # Mapped to nobody: a program that is run by root owns files as root does, but cannot pass for
    # root, and tools that refuse to run as root do run.
    args += ["--uid", _NOBODY, "--gid", _NOBODY, "--hostname", "mfm"]
    args += ["--cap-drop", "ALL", "--new-session", "--die-with-parent", "--clearenv"]
    # Before what lies in it, our own mounts included.
    if "/" in mounts.read_write:
        args += ["--bind", "/", "/"]
    elif "/" in mounts.read_only:
        args += ["--ro-bind", "/", "/"]
    # Memory that a program writes to a tmpfs is nobody's resident set: bound it by itself.
    size = ["--size", str(policy.memory_mb * _MIB)] if policy.memory_mb is not None else []
    args += ["--proc", "/proc", "--dev", "/dev", *size, "--tmpfs", _SHM]
    # Its `exe` leads to bubblewrap on the host, past every mount of ours: whoever owns that file,
    # as root does, could make it unusable, or setuid, for the whole host.
    args += ["--perms", "0555", "--size", "4096", "--tmpfs", _INIT]
    # Before the binds, which may lie below /tmp.
    args += [*size, "--perms", "1777", "--tmpfs", PRIVATE_TMP]
    binds = [("--ro-bind-try", path) for path in mounts.read_only]
    binds += [("--bind", path) for path in mounts.read_write]
    # A mount hides what was mounted inside of its place: the deeper one has to come later.
    for option, path in sorted(binds, key=lambda bind: len(bind[1])):
        if path != "/":
            args += [option, path, path]
    for target, path in mounts.links:
        args += ["--symlink", target, path]
    if pinned is not None and pinned.copy:
        args += ["--perms", "0555", "--ro-bind-data", str(pinned.fd), pinned.path]
    elif pinned is not None:
        args += ["--ro-bind-fd", str(pinned.fd), pinned.path]
    for target, path in links:
        args += ["--symlink", target, path]
    # A program that root runs is root to the kernel's own switches below /proc/sys, which have no
    # other guard: writing one would be an effect on the host, up to running code there.
    args += ["--remount-ro", _INIT, "--remount-ro", "/proc"]
    args += ["--remount-ro", "/dev"]
    if "/" not in mounts.read_write:
        args += ["--remount-ro", "/"]
    args += ["--chdir", PRIVATE_TMP]
    if filter_fd is not None:
        args += ["--seccomp", str(filter_fd)]
    for name, value in env.items():
        args += ["--setenv", name, value]
    args += ["--json-status-fd", str(status_fd), "--block-fd", str(gate_fd)]
    return tuple(args)


def encode_args(args: Sequence[str]) -> bytes:
    """`args` as bubblewrap's `--args` reads them: each ended by a NUL.

    Values of the environment so stay out of the process list, which every user can read.
    """
    return "\0".join((*args, "")).encode()


def launcher_argv(
    bwrap: str,
    args_fd: int,
    program: str,
    argv: Sequence[str],
    leash: tuple[str, int] | None = None,
) -> tuple[str, ...]:
    """The command that is run: options from `args_fd`, then the program and its arguments.

    `leash` is a mark that is to be seen in the process list, and a descriptor that the sandbox's
    init holds open and the program does not get.
    """
    held: tuple[str, ...] = ()
    if leash is not None:
        # Of no effect on an environment that is empty at first.
        held = ("--unsetenv", leash[0], "--sync-fd", str(leash[1]))
    return (bwrap, "--args", str(args_fd), *held, "--", program, *argv)
