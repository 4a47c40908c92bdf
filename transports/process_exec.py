"""One child: bounded streams, one deadline, and its whole tree dead at the end.

Knows nothing of requests, policies and error codes: it runs a launcher (bubblewrap or our own
supervisor) that tells its state as JSON documents and waits at a gate, and says how it ended. The
callers map that. Works on the event loop's own readers and pidfds: no thread, no child watcher.
"""

import asyncio
import os
import resource
import signal
import subprocess
import time
from contextlib import suppress
from typing import Final

import anyio

from transports.child import ChildResult, ChildSpec, Ending
from transports.descriptors import Descriptors
from transports.streams import BoundedReader, Feeder, parse_status
from transports.tree import hunt, kill_below
from transports.watch import Watch

__all__ = ["run_child"]

# How long a launcher may take to report its init, or to follow it into death, before everything
# that is its is killed; and how long a killed tree may take to die before we stop waiting. A
# process in an uninterruptible system call dies when the kernel lets it.
_INSIST_S = 0.7
_DEATH_S = 10.0


async def run_child(spec: ChildSpec) -> ChildResult:
    """Run one child to its end; when this returns or raises, no process of it is left.

    Call it in the event loop's own thread, which is the main one as a rule: the sandbox dies with
    the thread that spawned it.

    Raises:
        OSError: the launcher could not be spawned.
        ValueError: the launcher's arguments hold a NUL byte.
    """
    run = _Run(spec)
    try:
        run.spawn()
        try:
            await run.waited
        except BaseException:
            run.end("timeout")
            with anyio.CancelScope(shield=True):
                await _outwait(run.finished)
            raise
        return run.result()
    finally:
        run.close()


async def _outwait(finished: asyncio.Future[None]) -> None:
    """Wait for the tree's end, which is bounded, through any number of cancellations."""
    while not finished.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(finished)


class _Run:
    """The state of one run; every method runs in the event loop's thread."""

    def __init__(self, spec: ChildSpec) -> None:
        self._spec = spec
        self._loop = asyncio.get_running_loop()
        # Done at the tree's end. The caller waits for one of its own, which it may cancel; a
        # shield would cost one more turn of the loop, after a sleep.
        self.finished: asyncio.Future[None] = self._loop.create_future()
        self.waited: asyncio.Future[None] = self._loop.create_future()
        self._began = time.monotonic()
        self._fds = Descriptors(self._loop, self._fail)
        self._timers: list[asyncio.TimerHandle] = []
        self._ending: Ending | None = None
        self._limit: str | None = None
        self._told: dict[str, int] = {}
        self._status_tail = b""
        self._init: int | None = None
        self._init_gone = self._launcher_gone = self._killing = False
        self._clean = True
        self._watch: Watch | None = None

    def spawn(self) -> None:
        """Spawn the launcher and begin to listen."""
        spec = self._spec
        stdin, feed = os.pipe2(os.O_CLOEXEC)
        self._fds.keep(stdin)
        os.set_blocking(feed, False)
        self._feeder = Feeder(self._loop, feed, spec.stdin, lambda: self.end("stdin_failed"))
        stdout, stdout_end = self._fds.pipe()
        stderr, stderr_end = self._fds.pipe()
        self._status, status_end = self._fds.pipe()
        gate_end, self._gate = self._fds.pipe()
        command = spec.command(status_end, gate_end)
        self._kill_by = command.kill_by
        self._popen = subprocess.Popen(
            command.argv,
            stdin=stdin,
            stdout=stdout_end,
            stderr=stderr_end,
            env={},
            cwd="/",
            pass_fds=(*command.pass_fds, status_end, gate_end),
            # A terminal's Ctrl-C is ours to answer, in our order.
            start_new_session=True,
        )
        try:
            self._attend(stdout, stderr, (stdin, stdout_end, stderr_end, status_end, gate_end))
        except BaseException:
            # Its gate opens when we let go of it.
            kill_below(self._popen.pid)
            self._popen.wait()
            raise

    def _attend(self, stdout: int, stderr: int, not_ours: tuple[int, ...]) -> None:
        spec = self._spec
        for fd in not_ours:
            self._fds.close(fd)
        self._stdout = BoundedReader(stdout, spec.max_stdout_bytes)
        self._stderr = BoundedReader(stderr, spec.max_stderr_bytes, spec.stderr_sink)
        self._launcher = self._fds.keep(os.pidfd_open(self._popen.pid))
        self._fds.listen(self._launcher, self._on_launcher_gone)
        for fd, callback in (
            (self._status, self._on_status),
            (stdout, self._on_stdout),
            (stderr, self._on_stderr),
        ):
            os.set_blocking(fd, False)
            self._fds.listen(fd, callback)
        self._timers.append(self._loop.call_at(spec.deadline, self.end, "timeout"))

    def end(self, ending: Ending) -> None:
        """End the run; the first reason is the reason, and each means the death of the tree."""
        if self._ending is None:
            self._ending = ending
        if self._killing or self.finished.done():
            return
        self._killing = True
        self._kill()  # First, since the death takes longest.
        self._quieten()
        self._timers.append(self._loop.call_later(_INSIST_S, self._insist))
        self._timers.append(self._loop.call_later(_DEATH_S, self._give_up))

    def result(self) -> ChildResult:
        """How it ended; only once `finished` is done."""
        code = self._told.get("exit-code")
        if code is None and self._popen.returncode is not None and self._popen.returncode < 0:
            code = self._popen.returncode
        number = None if code is None else -code if code < 0 else code - 128
        return ChildResult(
            ending=self._ending or "not_started",
            exit_code=None if code is None or code < 0 else code,
            signal=number if number in _SIGNALS else None,
            exec_errno=self._told.get("exec-errno"),
            limit=self._limit,
            stdout=bytes(self._stdout.data),
            stderr=bytes(self._stderr.data),
            cpu_s=0 if self._watch is None else self._watch.cpu_s,
            peak_memory_bytes=None if self._watch is None else self._watch.peak_memory_bytes,
            duration_ms=int((time.monotonic() - self._began) * 1000),
            clean=self._clean,
            reported="child-pid" in self._told,
        )

    def close(self) -> None:
        """Release what the run holds of ours."""
        for timer in self._timers:
            timer.cancel()
        if self._watch is not None:
            self._watch.stop()
        if hasattr(self, "_feeder"):
            self._feeder.close()
        self._fds.close_all()

    # What happens, in the order in which it commonly does.

    def _on_status(self) -> None:
        try:
            chunk = os.read(self._status, 65536)
        except BlockingIOError:
            return
        if not chunk:
            self._fds.unlisten(self._status)
            return
        *lines, self._status_tail = (self._status_tail + chunk).split(b"\n")
        for line in lines:
            document = parse_status(line)
            self._told.update(document or {})
            if document is None or not self._told.keys() & {"child-pid", "exec-errno"}:
                # No launcher that we know: nothing tells what it is about to do, or held it back.
                self.end("not_started")
                self._insist()
                return
            if "child-pid" in document:
                self._on_init(document["child-pid"])
        if "exit-code" in self._told:
            # What the program left behind ends with it.
            self.end("exited")
        elif "exec-errno" in self._told:
            self.end("not_started")

    def _on_init(self, pid: int) -> None:
        """The tree's init is there and waits at the gate, so its number is its own."""
        try:
            init = self._init = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        except OSError:
            self.end("not_started")
            self._insist()
            return
        self._fds.keep(init)
        if self._killing:
            self._fds.listen(init, self._on_init_gone)
            self._kill()
            return
        try:
            for limit, *wanted in self._spec.rlimits:
                # Beyond our own hard limit only root can go, and nobody needs to.
                most = resource.getrlimit(limit)[1]
                soft, hard = (n if most < 0 else min(n, most) for n in wanted)
                resource.prlimit(pid, limit, (soft, hard))
            if self._spec.attach is not None:
                self._spec.attach(pid)
        except (OSError, ValueError):
            # Nothing runs without its limits.
            self._fds.listen(init, self._on_init_gone)
            self.end("not_started")
            return
        # The program waits for this: what it need not wait for comes after.
        with suppress(BrokenPipeError):
            os.write(self._gate, b"\n")
        self._fds.listen(init, self._on_init_gone)
        if self._spec.watch is not None:
            self._watch = Watch(self._loop, pid, self._spec.watch, self._on_limit)
            self._watch.start()
        self._feeder.start()

    def _on_stdout(self) -> None:
        self._read(self._stdout, "stdout_too_large")

    def _on_stderr(self) -> None:
        self._read(self._stderr, "stderr_too_large")

    def _read(self, reader: BoundedReader, too_large: Ending) -> None:
        if not reader.read_some():
            self._fds.unlisten(reader.fd)
        if reader.overflowed:
            self.end(too_large)

    def _on_limit(self, limit: str) -> None:
        self._limit = limit
        self.end("limit")

    def _on_init_gone(self) -> None:
        # With the init of a PID namespace the kernel has reaped all that was in it.
        self._init_gone = True
        self._fds.unlisten(self._init)
        self._check_finished()

    def _on_launcher_gone(self) -> None:
        self._launcher_gone = True
        self._fds.unlisten(self._launcher)
        self._popen.wait()
        # Its last words: a quick program's whole story may still lie in the pipe.
        self._on_status()
        if not self._killing:
            self.end("exited" if self._popen.returncode < 0 else "not_started")
        if self._kill_by == "gate" and self._popen.returncode < 0:
            # The supervisor's tree is nobody's now: what was seen of it has to do.
            seen = () if self._watch is None else self._watch.pids
            hunt({*seen, *(pid for key, pid in self._told.items() if key == "program-pid")})
        self._check_finished()

    def _check_finished(self) -> None:
        if self.finished.done() or not self._launcher_gone:
            return
        if self._init is not None and not self._init_gone:
            return
        if self._init is not None:
            # Its launcher leaves it to PID 1 or a subreaper, and that may be us.
            with suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._init, os.WEXITED | os.WNOHANG)
        # All writers are dead: what is in the pipes now is all there will ever be.
        self._stdout.drain()
        self._stderr.drain()
        if self._ending == "exited" and self._stdout.overflowed:
            self._ending = "stdout_too_large"
        elif self._ending == "exited" and self._stderr.overflowed:
            self._ending = "stderr_too_large"
        self._finish()

    def _finish(self, error: Exception | None = None) -> None:
        if not self.finished.done():
            self.finished.set_result(None)
        if self.waited.done():
            return
        if error is None:
            self.waited.set_result(None)
        else:
            self.waited.set_exception(error)

    # Ending it.

    def _quieten(self) -> None:
        self._feeder.close()
        if self._watch is not None:
            self._watch.stop()
        for reader in (self._stdout, self._stderr):
            self._fds.unlisten(reader.fd)

    def _kill(self) -> None:
        if self._kill_by == "gate":
            # Once only: the number may be the init's own descriptor the next time.
            gate, self._gate = self._gate, -1
            self._fds.close(gate)
            # Its program may have stopped it.
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._launcher, signal.SIGCONT)
        elif self._init is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
        # Else it is killed as soon as its launcher reports it, before it runs anything: killing
        # the launcher first would leave an init that nobody knows of, waiting for its parent.

    def _insist(self) -> None:
        if self._launcher_gone:
            return
        # The supervisor goes on killing for as long as it lives; nobody else could find the tree.
        kill_below(self._popen.pid, itself=self._kill_by == "init")
        self._timers.append(self._loop.call_later(_INSIST_S, self._insist))

    def _fail(self, error: Exception) -> None:
        kill_below(self._popen.pid)
        self._finish(error)

    def _give_up(self) -> None:
        self._clean = False
        self._finish()


_SIGNALS: Final = frozenset(int(number) for number in signal.valid_signals())
