"""Runs one program under the site's policy and says, in the contract's words, how that went.

What `exec` and `nix.exec` share (the contract, section 8): pin the program, hold it in the sandbox
and its limits, judge its output. The form of a request is checked by its own transport.
"""

import asyncio
import errno
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, Literal

import anyio
from anyio import to_thread

from mfm_ops.machine.canonical import Json, canonical_json_bytes
from mfm_ops.machine.meta import SideEffectKind
from mfm_ops.machine.transport import TransportReply
from transports.bubblewrap import Bubblewrap, find_bubblewrap
from transports.cgroup import CallGroup, Domain, find_domain
from transports.child import MAX_STREAM_BYTES, ChildResult, ChildSpec
from transports.launch import (
    MakeCommand,
    TooManyArgumentsError,
    bare_command,
    rlimits,
    sandboxed_command,
)
from transports.leash import Leash
from transports.outcome import (
    exceeded_limit,
    failure,
    limit_mechanisms,
    not_started,
    parse_response,
    refused_by_system,
    require_success,
    sandbox_unavailable,
    spawn_failure,
    too_slow,
    was_set_up,
)
from transports.policy import ExecPolicy
from transports.process_exec import run_child
from transports.program import SETTLED_S, DigestCache, PinnedProgram, pin_program
from transports.sandbox import MEMORY_PLACES
from transports.view import Neighbours
from transports.watch import WatchLimits

__all__ = ["IDEMPOTENCY_VARIABLE", "ProgramCall", "ProgramRunner"]

IDEMPOTENCY_VARIABLE: Final = "MFM_IDEMPOTENCY_KEY"

_MIB = 1024 * 1024
_PIN_TRIES = 4


@dataclass(frozen=True, slots=True)
class ProgramCall:
    """One program to run: the checked content of a request."""

    program_path: str
    argv: tuple[str, ...] = ()
    stdin_json: Json = None
    timeout_ms: int = 300_000
    env: Mapping[str, str] = field(default_factory=dict)
    numbers: Literal["reject", "string"] = "reject"


@dataclass(slots=True)
class _Means:
    """What this host has to run programs with; looked for once, at the first call."""

    bubblewrap: Bubblewrap | None
    domain: Domain | None
    leash: Leash | None


class ProgramRunner:
    """Runs programs under one policy; `policy_digest` is the artifact id of `policy.to_json()`.

    `stderr_sink` is given what programs write to standard error, as it comes.
    """

    def __init__(
        self,
        policy: ExecPolicy,
        policy_digest: str,
        *,
        stderr_sink: Callable[[bytes], None] | None = None,
    ) -> None:
        self.policy = policy
        self._policy_digest = policy_digest
        self._stderr_sink = stderr_sink
        self._digests = DigestCache()
        self._neighbours = Neighbours()
        self._means: _Means | None = None
        self._looking = anyio.Lock()

    async def run(
        self,
        call: ProgramCall,
        *,
        side_effects: SideEffectKind,
        idempotency_key: str | None = None,
        transport: str = "exec",
    ) -> TransportReply:
        """Run the program; its standard output is the response.

        Cancelled or failed, it leaves no process behind. `meta` says what ran, and under what.

        Raises:
            TransportFailure: one of the `exec_*` codes, `exec_request_invalid` excepted.
            CanonicalError: the input has no canonical form.
        """
        deadline = asyncio.get_running_loop().time() + call.timeout_ms / 1000
        if self.policy.may_have_effects and side_effects is not SideEffectKind.ApplySideEffect:
            raise failure(
                "exec_effect_undeclared",
                "the policy lets the program have effects, and the state does not declare any",
                reason=_effect_reason(self.policy),
            )
        stdin = canonical_json_bytes(call.stdin_json)
        if len(stdin) > MAX_STREAM_BYTES:
            raise failure(
                "exec_stdin_too_large",
                "the program's standard input is too large",
                limit_bytes=MAX_STREAM_BYTES,
            )
        env = dict(call.env)
        if idempotency_key is not None:
            env[IDEMPOTENCY_VARIABLE] = idempotency_key
        if self._means is None:
            with anyio.CancelScope(deadline=deadline) as in_time:
                await self._find_means()
            if in_time.cancelled_caught:
                raise too_slow(call.timeout_ms, {})
        try:
            for _ in range(_PIN_TRIES):
                with pin_program(call.program_path, self.policy) as program:
                    reply = await self._run_pinned(
                        call, program, stdin, env=env, deadline=deadline, transport=transport
                    )
                if reply is not None:
                    return reply
                # By then its times tell whether it is still being replaced.
                await anyio.sleep(SETTLED_S)
        except OSError as exc:
            raise refused_by_system(exc, {}) from None
        raise failure(
            "exec_program_not_allowed",
            "the program was replaced each time it was about to run",
            reason="replaced",
        )

    async def _run_pinned(
        self,
        call: ProgramCall,
        program: PinnedProgram,
        stdin: bytes,
        *,
        env: Mapping[str, str],
        deadline: float,
        transport: str,
    ) -> TransportReply | None:
        """One run of one opened file; None when it was replaced before the sandbox had it."""
        where = {"program_path": program.resolved}
        digest = self._digests.known(program)
        if digest is None and program.readable:
            with anyio.CancelScope(deadline=deadline) as in_time:
                digest = await self._digests.sha256(program)
            if in_time.cancelled_caught:
                raise too_slow(call.timeout_ms, where)
        group = self._group()
        try:
            with self._command(program, call.argv, env) as command:
                result = await self._spawn(command, program, stdin, deadline, group)
            held = "cgroup" if group is not None else "watch"
            hit = None if group is None else group.exceeded()
            exceeded = exceeded_limit(result, hit, self.policy)
            peak = None if group is None else group.peak_memory_bytes()
        finally:
            if group is not None:
                group.close()
        if result.ending == "not_started":
            if not was_set_up(result) and program.relinked():
                return None
            raise not_started(result, where)
        require_success(result, exceeded, held, call.timeout_ms, where)
        if program.changed():
            raise failure(
                "exec_program_not_allowed",
                "the program was written to while it ran: what ran is not what was checked",
                reason="modified",
                **where,
            )
        response = parse_response(result.stdout, call.numbers, where)
        meta: dict[str, Json] = {
            "transport": transport,
            "program": program.resolved,
            "program_sha256": digest,
            "sandbox": self.policy.sandbox,
            "sandbox_version": self._sandbox_version(),
            "policy_digest": self._policy_digest,
            "exit_status": 0,
            "duration_ms": result.duration_ms,
            "peak_memory_bytes": result.peak_memory_bytes if peak is None else peak,
            "limits": limit_mechanisms(self.policy, held),
        }
        return TransportReply(response, meta)

    async def _spawn(
        self,
        command: MakeCommand,
        program: PinnedProgram,
        stdin: bytes,
        deadline: float,
        group: CallGroup | None,
    ) -> ChildResult:
        policy = self.policy
        memory = None if policy.memory_mb is None else policy.memory_mb * _MIB
        spec = ChildSpec(
            command=command,
            stdin=stdin,
            deadline=deadline,
            # Without a sandbox the init is our supervisor, which sets them on the program itself.
            rlimits=rlimits(policy) if policy.sandbox == "bubblewrap" else (),
            watch=WatchLimits()
            if group is not None
            else WatchLimits(
                memory,
                policy.processes,
                MEMORY_PLACES if policy.sandbox == "bubblewrap" else (),
                policy.sandbox == "bubblewrap" and not policy.network,
            ),
            attach=None if group is None else group.add,
            stderr_sink=self._stderr_sink if policy.pass_stderr else None,
        )
        where = {"program_path": program.resolved}
        try:
            return await run_child(spec)
        except TooManyArgumentsError:
            raise spawn_failure("too_long", where) from None
        except OSError as exc:
            if exc.errno == errno.E2BIG:
                raise spawn_failure("too_long", where) from None
            if exc.errno == errno.ENOENT:
                # It was there when we looked; look again at the next call.
                self._means = None
                raise sandbox_unavailable("missing") from None
            raise refused_by_system(exc, where) from None

    def _command(
        self, program: PinnedProgram, argv: tuple[str, ...], env: Mapping[str, str]
    ) -> AbstractContextManager[MakeCommand]:
        if self.policy.sandbox == "off":
            return bare_command(self.policy, program, argv, env)
        if self._means is None or self._means.bubblewrap is None:
            self._means = None
            raise sandbox_unavailable("missing")
        return sandboxed_command(
            self._means.bubblewrap,
            self.policy,
            program,
            argv,
            env,
            neighbours=self._neighbours,
            leash=self._means.leash,
        )

    async def _find_means(self) -> None:
        async with self._looking:
            if self._means is None:
                try:
                    # A bubblewrap that hangs is given up by itself, and must not hold the call.
                    self._means = await to_thread.run_sync(
                        self._look_around, abandon_on_cancel=True
                    )
                except OSError as exc:
                    raise refused_by_system(exc, {}) from None

    def _look_around(self) -> _Means:
        wanted = self.policy.sandbox == "bubblewrap"
        bubblewrap = find_bubblewrap() if wanted else None
        # The guard comes last: a process beside ours would keep us from taking up our cgroup.
        domain = find_domain()
        return _Means(bubblewrap, domain, None if bubblewrap is None else Leash())

    def _group(self) -> CallGroup | None:
        policy, means = self.policy, self._means
        if means is None or means.domain is None:
            return None
        memory = None if policy.memory_mb is None else policy.memory_mb * _MIB
        try:
            return means.domain.create(memory, policy.processes)
        except OSError:
            return None

    def _sandbox_version(self) -> str | None:
        if self._means is None or self._means.bubblewrap is None:
            return None
        return self._means.bubblewrap.version


def _effect_reason(policy: ExecPolicy) -> str:
    if policy.sandbox == "off":
        return "sandbox_off"
    return "network" if policy.network else "read_write_paths"
