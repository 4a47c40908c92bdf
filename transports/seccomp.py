"""Pure: the system calls that a sandboxed program does not get, as a seccomp filter.

Namespaces and mounts leave doors open: a socket file in a directory that is only readable, a
keyring that is inherited, a name space made inside, memory that is in no process, the sandbox's own
init. Loading the filter is bubblewrap's.
"""

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final

__all__ = ["filter_program"]

# struct seccomp_data: the call's number, the architecture, then (after an address) the arguments.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT, _THIRD_ARGUMENT = 0, 4, 16, 24, 32

# Opcodes of classic BPF.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06

_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_FAIL: Final = 0x00050000

_CLONE_NEWUSER: Final = 0x10000000
_X32: Final = 0x40000000

_AF_INET, _AF_INET6, _AF_NETLINK = 2, 10, 16

# What SOCK_DGRAM and SOCK_RAW, which is the same to Unix sockets, have and the others have not.
_SOCK_DGRAM: Final = 0x2

_SOL_SOCKET, _SO_SNDBUF, _SO_RCVBUF = 1, 7, 8

_INIT: Final = 1

# Keyrings are inherited and belong to the user, on the host as in the sandbox.
# io_uring does what other calls do, unseen by filters. A new name space would give all
# capabilities in it back: `clone3` hides its flags in memory, and everybody falls back to `clone`.
# Memory of the others is in no process and in no file, so no limit would see it.
_REFUSED: Final[Mapping[str, int]] = MappingProxyType(
    {
        "add_key": errno.EPERM,
        "keyctl": errno.EPERM,
        "request_key": errno.EPERM,
        "setns": errno.EPERM,
        "clone3": errno.ENOSYS,
        "io_uring_setup": errno.ENOSYS,
        "memfd_create": errno.ENOSYS,
        "memfd_secret": errno.ENOSYS,
        "msgget": errno.ENOSYS,
        "shmget": errno.ENOSYS,
    }
)


@dataclass(frozen=True, slots=True)
class _Machine:
    """A processor's name for the kernel's audit, and its numbers of system calls."""

    audit: int
    numbers: Mapping[str, int]
    has_x32: bool = False


_X86_64: Final = MappingProxyType(
    {
        "add_key": 248,
        "clone": 56,
        "clone3": 435,
        "io_uring_setup": 425,
        "keyctl": 250,
        "memfd_create": 319,
        "memfd_secret": 447,
        "msgget": 68,
        "process_vm_writev": 311,
        "ptrace": 101,
        "request_key": 249,
        "setns": 308,
        "setsockopt": 54,
        "shmget": 29,
        "socket": 41,
        "socketpair": 53,
        "unshare": 272,
    }
)
# What architectures younger than these numbers share.
_GENERIC: Final = MappingProxyType(
    {
        "add_key": 217,
        "clone": 220,
        "clone3": 435,
        "io_uring_setup": 425,
        "keyctl": 219,
        "memfd_create": 279,
        "memfd_secret": 447,
        "msgget": 186,
        "process_vm_writev": 271,
        "ptrace": 117,
        "request_key": 218,
        "setns": 268,
        "setsockopt": 208,
        "shmget": 194,
        "socket": 198,
        "socketpair": 199,
        "unshare": 97,
    }
)
_MACHINES: Final = MappingProxyType(
    {
        "aarch64": _Machine(0xC00000B7, _GENERIC),
        "riscv64": _Machine(0xC00000F3, _GENERIC),
        "x86_64": _Machine(0xC000003E, _X86_64, has_x32=True),
    }
)

_Step = tuple[int, int, int, int]


@cache
def filter_program(machine: str, *, network: bool) -> bytes | None:
    """The filter for `machine` (as `uname -m` says) as an array of `struct sock_filter`.

    None for a machine whose numbers are not known here. Without `network`, sockets are those of
    the sandbox's own network only: a Unix socket reaches whoever listens on a visible path, and a
    VM's socket its host.
    """
    known = _MACHINES.get(machine)
    if known is None:
        return None
    numbers = known.numbers
    steps: list[_Step] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        # Another architecture's calls have other numbers.
        (_EQUAL, 1, 0, known.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if known.has_x32:
        steps += [(_AT_LEAST, 0, 1, _X32), _fail(errno.ENOSYS)]
    for name, number in _REFUSED.items():
        steps += [(_EQUAL, 0, 1, numbers[name]), _fail(number)]
    for name in ("clone", "unshare"):
        steps += _on_argument(
            numbers[name],
            _FIRST_ARGUMENT,
            [(_ANY_BIT, 0, 1, _CLONE_NEWUSER), _fail(errno.EPERM)],
        )
    # Whoever steers the init makes it outlive its launcher, and so mfm.
    for name, place in (("process_vm_writev", _FIRST_ARGUMENT), ("ptrace", _SECOND_ARGUMENT)):
        steps += _on_argument(numbers[name], place, [(_EQUAL, 0, 1, _INIT), _fail(errno.EPERM)])
    if not network:
        families = (_AF_INET, _AF_INET6, _AF_NETLINK)
        allowed: list[_Step] = [
            (_EQUAL, len(families) - place, 0, family) for place, family in enumerate(families)
        ]
        steps += _on_argument(
            numbers["socket"], _FIRST_ARGUMENT, [*allowed, _fail(errno.EAFNOSUPPORT)]
        )
        # A datagram goes to any address, whoever the socket was paired with.
        steps += _on_argument(
            numbers["socketpair"],
            _SECOND_ARGUMENT,
            [(_ANY_BIT, 0, 1, _SOCK_DGRAM), _fail(errno.ESOCKTNOSUPPORT)],
        )
        # What is in a socket's buffers is in no process either, so they stay as they are. Done by
        # doing nothing: a size is a wish, which the kernel cuts to its own measure anyway.
        steps += _on_argument(
            numbers["setsockopt"],
            _SECOND_ARGUMENT,
            [
                (_EQUAL, 0, 4, _SOL_SOCKET),
                (_LOAD, 0, 0, _THIRD_ARGUMENT),
                (_EQUAL, 1, 0, _SO_SNDBUF),
                (_EQUAL, 0, 1, _SO_RCVBUF),
                _fail(0),
            ],
        )
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _fail(number: int) -> _Step:
    return (_RETURN, 0, 0, _FAIL | number)


def _on_argument(number: int, place: int, decide: list[_Step]) -> list[_Step]:
    """`decide` on the argument at `place` of call `number`; what it lets pass is allowed.

    On its lower half, which is all that the kernel takes of flags, types and process ids.
    """
    body: list[_Step] = [(_LOAD, 0, 0, place), *decide, (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]
