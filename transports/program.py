"""From a program's path to an open file that may run: check and use the same thing.

Resolves by opening, checks what was opened, follows `#!` lines and takes the digest. What the
sandbox then shows at which path is `view`'s.
"""

# Plain calls of os: pathlib knows no descriptors, and costs where this is called often.
# ruff: noqa: PTH115, PTH116, PTH120, PTH123

import hashlib
import os
import stat
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import Final, Self

from anyio import to_thread

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import TransportFailure
from transports.descriptors import is_shortage
from transports.magic import ELF_MAGIC, HEAD_BYTES, is_native, script_interpreter
from transports.policy import NIX_STORE, ExecPolicy, is_below, is_utf8

__all__ = ["DigestCache", "PinnedProgram", "SETTLED_S", "pin_program"]

# The kernel follows this many `#!` lines.
_MAX_INTERPRETERS = 4

# Below this a digest costs less than handing it to a thread.
_HASH_IN_LOOP_BYTES = 256 * 1024
_CHUNK_BYTES = 4 * 1024 * 1024

_REOPEN_TRIES = 100

SETTLED_S: Final = 0.02
"""After so long without a change a file's times are its own: Linux' longest tick is 10 ms."""


@dataclass(slots=True)
class PinnedProgram:
    """An opened, checked program. Close it, or use it as a context manager.

    `fd` is open for reading where the file's mode allows it (`readable`), else by path only.
    `roots` are the prefixes and read-only paths that hold it and its interpreters. `sealed` says
    that its path cannot come to mean another file (a Nix store, as Nix leaves it).
    """

    fd: int
    requested: str
    resolved: str
    readable: bool
    script: bool
    size: int
    roots: tuple[str, ...]
    sealed: bool
    stamp: tuple[int, int, int, int, int]
    checked_ns: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self.fd)

    def changed(self) -> bool:
        """Whether the opened file itself was written to since the check.

        Replacing the path changes the link count, and so ctime; that is no change of content.
        """
        now = os.fstat(self.fd)
        return (now.st_size, now.st_mtime_ns) != self.stamp[2:4]

    def relinked(self) -> bool:
        """Whether the file may have got another name since the check, or lost one.

        What changed last just before the check may have changed again since: a file's times go by
        the kernel's ticks.
        """
        too_new = self.stamp[4] > self.checked_ns - SETTLED_S * 1e9
        return too_new or _stamp(os.fstat(self.fd)) != self.stamp


def pin_program(path: str, policy: ExecPolicy) -> PinnedProgram:
    """Open the program at `path` and check that `policy` lets it run.

    Raises:
        TransportFailure: exec_program_missing, exec_program_not_allowed (details.reason
            `outside_prefixes`, `interpreter` or `not_utf8`), exec_program_not_executable,
            exec_spawn_failed (details.reason `exec_format`).
        OSError: no descriptor or memory is left to look at it with.
    """
    fd, resolved = _open_resolved(path)
    try:
        root = _owner(resolved, policy.allow_prefixes)
        if root is None:
            raise _failure(
                "exec_program_not_allowed",
                "the program does not lie under an allowed prefix",
                reason="outside_prefixes",
                program_path=resolved,
            )
        info = _require_executable(fd, resolved)
        roots = [root]
        head = _read_head(fd)
        if head is not None:
            roots += _interpreter_roots(head, info.st_size, resolved, policy)
            # O_NONBLOCK is of no effect on the regular file that this was checked to be.
            readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
            os.close(fd)
            fd = readable
        return PinnedProgram(
            fd=fd,
            requested=path,
            resolved=resolved,
            readable=head is not None,
            script=head is not None and head.startswith(b"#!"),
            size=info.st_size,
            roots=tuple(dict.fromkeys(roots)),
            sealed=_is_sealed(resolved, info),
            stamp=_stamp(info),
            checked_ns=time.time_ns(),
        )
    except BaseException:
        os.close(fd)
        raise


class DigestCache:
    """SHA-256 of programs, remembered while device, inode, size, mtime and ctime stay the same."""

    def __init__(self, capacity: int = 256) -> None:
        self._known: OrderedDict[tuple[int, ...], str] = OrderedDict()
        self._capacity = capacity

    def known(self, program: PinnedProgram) -> str | None:
        """The remembered hex digest of `program`, if there is one."""
        known = self._known.get(program.stamp)
        if known is not None:
            self._known.move_to_end(program.stamp)
        return known

    async def sha256(self, program: PinnedProgram) -> str:
        """The hex digest of `program`, which must be readable."""
        hashed, offset = hashlib.sha256(), 0
        while chunk := os.pread(program.fd, _CHUNK_BYTES, offset):
            offset += len(chunk)
            if program.size <= _HASH_IN_LOOP_BYTES:
                hashed.update(chunk)
            else:
                # Between the chunks of a large program the call can be cancelled.
                await to_thread.run_sync(hashed.update, chunk)
        digest = hashed.hexdigest()
        if _stamp(os.fstat(program.fd)) == program.stamp:
            self._known[program.stamp] = digest
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return digest


def _stamp(info: os.stat_result) -> tuple[int, int, int, int, int]:
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def _failure(code: str, message: str, **details: str) -> TransportFailure:
    return TransportFailure(error_info(code, message, **details))


def _open_resolved(path: str) -> tuple[int, str]:
    """Open `path` without reading it, and say where the opened file lies.

    The kernel's own answer for the open file, and it holds for the names that this process sees.
    """
    for _ in range(_REOPEN_TRIES):
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except PermissionError:
            raise _failure(
                "exec_program_not_executable",
                "the program cannot be reached: a directory on its path is closed to this user",
            ) from None
        except (OSError, ValueError) as exc:
            if isinstance(exc, OSError) and is_shortage(exc):
                raise
            raise _failure("exec_program_missing", "there is no such program") from None
        try:
            resolved = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            # Links lead deeper than the kernel's longest path.
            os.close(fd)
            raise
        if not is_utf8(resolved):
            os.close(fd)
            raise _failure(
                "exec_program_not_allowed",
                "the program lies at a path that is not UTF-8, which no record can hold",
                reason="not_utf8",
            )
        if _is_at(resolved, fd):
            return fd, resolved
        # Replaced meanwhile: what lies there now is what counts. Or the name is no name of ours:
        # what is reached by way of /proc may lie in another process's mounts, and be called there
        # like a program of ours.
        os.close(fd)
    raise _failure(
        "exec_program_not_allowed",
        "the program was replaced each time it was looked at, or lies in other mounts than ours",
        reason="replaced",
    )


def _is_at(path: str, fd: int) -> bool:
    """Whether `path` is the opened file's name here, and not the kernel's remark on one."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except OSError:
        return False


def _owner(path: str, roots: tuple[str, ...]) -> str | None:
    owners = [root for root in roots if is_below(path, root)]
    return min(owners, key=len, default=None)


def _require_executable(fd: int, path: str) -> os.stat_result:
    info = os.fstat(fd)
    if stat.S_ISDIR(info.st_mode):
        message = "the program is a directory"
    elif not stat.S_ISREG(info.st_mode):
        message = "the program is not a regular file"
    elif not os.access(f"/proc/self/fd/{fd}", os.X_OK):
        message = "the program's file is not executable for this user"
    else:
        return info
    raise _failure("exec_program_not_executable", message, program_path=path)


def _read_head(fd: int) -> bytes | None:
    try:
        readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return None
    try:
        return os.pread(readable, HEAD_BYTES, 0)
    finally:
        os.close(readable)


def _interpreter_roots(head: bytes, size: int, path: str, policy: ExecPolicy) -> list[str]:
    """The roots that hold the interpreters that `head` leads to; none for a native program."""
    roots: list[str] = []
    for _ in range(_MAX_INTERPRETERS):
        if head.startswith(ELF_MAGIC) and _is_native(head, size):
            return roots
        interpreter = script_interpreter(head) if head.startswith(b"#!") else None
        if interpreter is None:
            raise _failure(
                "exec_spawn_failed",
                "the program is neither a native executable nor a script with a #! line",
                reason="exec_format",
                program_path=path,
            )
        owner, head, size = _check_interpreter(os.fsdecode(interpreter), path, policy)
        roots.append(owner)
        if not head:
            return roots
    raise _interpreter_failure(path)


def _is_native(head: bytes, size: int) -> bool:
    return is_native(head, size, _own_head())


@cache
def _own_head() -> bytes:
    with open("/proc/self/exe", "rb") as own:
        return own.read(HEAD_BYTES)


def _check_interpreter(interpreter: str, script: str, policy: ExecPolicy) -> tuple[str, bytes, int]:
    """Its root, head and size; no head where it may be run but not read, as native ones may.

    `script` is the program that leads to it.
    """
    if not interpreter.startswith("/"):
        raise _interpreter_failure(script)
    try:
        fd, resolved = _open_resolved(interpreter)
    except TransportFailure:
        raise _interpreter_failure(script) from None
    try:
        owner = _owner(resolved, policy.allow_prefixes + policy.read_only_paths)
        if owner is None:
            raise _interpreter_failure(script)
        info = _require_executable(fd, resolved)
        return owner, _read_head(fd) or b"", info.st_size
    finally:
        os.close(fd)


def _interpreter_failure(script: str) -> TransportFailure:
    return _failure(
        "exec_program_not_allowed",
        "the interpreter that the script's #! line names is not there, or lies under no allowed "
        "prefix and no read-only path",
        reason="interpreter",
        program_path=script,
    )


def _is_sealed(path: str, info: os.stat_result) -> bool:
    """Whether Nix made this: in its store, with no write bit up to the store path itself."""
    if not is_below(path, NIX_STORE) or info.st_mode & 0o222:
        return False
    parent = os.path.dirname(path)
    try:
        while parent != NIX_STORE:
            if os.stat(parent).st_mode & 0o222:
                return False
            parent = os.path.dirname(parent)
    except OSError:
        return False
    return True
