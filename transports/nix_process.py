"""Runs one command of Nix: bounded streams, asked to end before it is made to, nothing left.

A Nix that is killed outright leaves its builders behind, so it gets SIGTERM and some time first.
Commands are started directly and not under `supervisor`, whose start takes longer than the commands
themselves. What they say is judged elsewhere.
"""

import asyncio
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

import anyio
from anyio import to_thread

from transports.child import MAX_STREAM_BYTES
from transports.descriptors import Descriptors
from transports.leash import Leash
from transports.nix_commands import NixCommand
from transports.streams import BoundedReader
from transports.tree import descendants, kill_below

__all__ = ["NixProcesses", "NixResult"]

_GRACE_S: Final = 5.0
_DEATH_S: Final = 10.0
_TAIL_BYTES: Final = 256 * 1024
_MARK: Final = "MFM_NIX_GUARD"
_GUARD: Final = str(Path(__file__).with_name("nix_guard.py"))


class NixResult(NamedTuple):
    """How a command ended; `exit_code` is negative for a signal.

    `overflow` names the stream that was too large; the command was ended for it. Of a stderr that
    need not be whole, the last part.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    overflow: Literal["stdout", "stderr"] | None


class _TailReader(BoundedReader):
    """Keeps the end of a stream of any length."""

    def read_some(self) -> bool:
        more = super().read_some()
        if self.overflowed:
            del self.data[:_TAIL_BYTES]
            self.overflowed = False
        return more


class NixProcesses:
    """Starts the commands of one Nix: `program` is the path of `nix`, `environment` all of theirs.

    `stderr_sink` is given what they write to standard error, as it comes.
    """

    def __init__(
        self,
        program: str,
        environment: Mapping[str, str],
        *,
        stderr_sink: Callable[[bytes], None] | None = None,
    ) -> None:
        self._program = program
        self._environment = dict(environment)
        self._stderr_sink = stderr_sink
        self._leash: Leash | None = None
        self._starting = anyio.Lock()

    async def run(self, command: NixCommand) -> NixResult:
        """Run `command` to its end. Cancelled, it leaves no process of it behind.

        Raises:
            OSError: it could not be started.
        """
        if self._leash is None:
            async with self._starting:
                if self._leash is None:
                    self._leash = await to_thread.run_sync(Leash, _GUARD)
        child = _Child(command, self._stderr_sink)
        try:
            child.spawn(
                self._executable(command.program),
                {**self._environment, _MARK: self._leash.mark},
                self._leash.fd,
            )
            try:
                await asyncio.shield(child.attention)
            finally:
                await child.stop()
            return child.result()
        finally:
            child.close()

    def _executable(self, name: str) -> str:
        """The file for `name`: `nix`, what lies beside it, or else `nix` by another name."""
        if name == "nix":
            return self._program
        beside = str(Path(self._program).with_name(name))
        return beside if shutil.which(beside) else self._program


class _Child:
    """One running command; every method runs in the event loop's thread."""

    def __init__(self, command: NixCommand, sink: Callable[[bytes], None] | None) -> None:
        self._command = command
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        # Done when the command is gone, or has to go.
        self.attention: asyncio.Future[None] = self._loop.create_future()
        self._fds = Descriptors(self._loop, self._fail)
        self._family: dict[int, int] = {}
        self._error: Exception | None = None

    def spawn(self, executable: str, environment: Mapping[str, str], leash: int) -> None:
        """Start it and begin to listen."""
        stdout, stdout_end = self._fds.pipe()
        stderr, stderr_end = self._fds.pipe()
        self._popen = subprocess.Popen(
            (self._command.program, *self._command.arguments),
            executable=executable,
            stdin=subprocess.DEVNULL,
            stdout=stdout_end,
            stderr=stderr_end,
            env=environment,
            cwd="/",
            pass_fds=(leash,),
            # A terminal's Ctrl-C is ours to answer, in our order; and git and ssh cannot ask.
            start_new_session=True,
        )
        try:
            self._attend_to(stdout, stderr, (stdout_end, stderr_end))
        except BaseException:
            kill_below(self._popen.pid)
            self._popen.wait()
            raise

    def _attend_to(self, stdout: int, stderr: int, not_ours: tuple[int, ...]) -> None:
        for fd in not_ours:
            self._fds.close(fd)
        self._stdout = BoundedReader(stdout, MAX_STREAM_BYTES)
        kept = BoundedReader if self._command.whole_stderr else _TailReader
        limit = MAX_STREAM_BYTES if self._command.whole_stderr else 2 * _TAIL_BYTES
        self._stderr = kept(stderr, limit, self._sink)
        self._pidfd = self._fds.keep(os.pidfd_open(self._popen.pid))
        self._fds.listen(self._pidfd, self._on_gone)
        for reader in (self._stdout, self._stderr):
            os.set_blocking(reader.fd, False)
        self._fds.listen(stdout, lambda: self._read(self._stdout))
        self._fds.listen(stderr, lambda: self._read(self._stderr))

    def result(self) -> NixResult:
        """How it ended; only once it is gone."""
        if self._error is not None:
            raise self._error
        overflow: Literal["stdout", "stderr"] | None = None
        if self._stdout.overflowed:
            overflow = "stdout"
        elif self._stderr.overflowed:
            overflow = "stderr"
        code = self._popen.returncode
        return NixResult(
            exit_code=-signal.SIGKILL if code is None else code,
            stdout=bytes(self._stdout.data),
            stderr=bytes(self._stderr.data),
            overflow=overflow,
        )

    async def stop(self) -> None:
        """Return when it is gone, however that has to be brought about; takes bounded time."""
        if self._gone.done():
            return
        self._remember_family()
        self._signal(signal.SIGTERM)
        await self._outlast(_GRACE_S)
        if not self._gone.done():
            self._remember_family()
            kill_below(self._popen.pid)
            await self._outlast(_DEATH_S)
        for pid, fd in self._family.items():
            # A descriptor that is silent vouches for the number.
            if not _is_over(fd):
                kill_below(pid)

    def close(self) -> None:
        """Release what is ours."""
        self._fds.close_all()

    def _read(self, reader: BoundedReader) -> None:
        # Past its limit too: blocked in a write, it would not hear that it is to end.
        more = os.read(reader.fd, _TAIL_BYTES) if reader.overflowed else reader.read_some()
        if not more:
            self._fds.unlisten(reader.fd)
        if reader.overflowed:
            self._attend()

    def _on_gone(self) -> None:
        self._fds.unlisten(self._pidfd)
        with suppress(ProcessLookupError, PermissionError):
            # Not reaped yet: its group's number is nobody else's.
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self._stdout.drain()
        self._stderr.drain()
        self._gone.set_result(None)
        self._attend()

    def _attend(self) -> None:
        if not self.attention.done():
            self.attention.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._attend()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _remember_family(self) -> None:
        for pid in descendants(self._popen.pid):
            if pid not in self._family:
                with suppress(OSError):
                    self._family[pid] = self._fds.keep(os.pidfd_open(pid))

    async def _outlast(self, seconds: float) -> None:
        """Wait for its end, through any number of cancellations."""
        until = self._loop.time() + seconds
        while not self._gone.done() and (left := until - self._loop.time()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({self._gone}, timeout=left)


def _is_over(pidfd: int) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))
