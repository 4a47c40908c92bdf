"""`nix.exec`: an allowed flake's app, resolved to a pinned program, and run in the sandbox.

Looks up what the run's manifest allows, asks the resolver, and hands programs to the runner that
`exec` uses too (the contract, section 8). How Nix is asked is `nix_resolver`'s.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError

from mfm_ops.machine.canonical import CanonicalError, Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import RunManifest
from mfm_ops.machine.errors import StorageFailure, TransportFailure
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.transport import LiveIoEnv, TransportReply
from transports.nix_failures import nix_failure
from transports.nix_refs import RefError, parse_app_ref, require_allowed
from transports.nix_requests import RunFlakeAppV1, invalid_request, parse_request
from transports.nix_resolver import NixSite, Resolution, Resolver
from transports.policy import ExecPolicy
from transports.runner import ProgramCall, ProgramRunner

__all__ = ["NixExecFactory", "NixExecTransport"]

# What a program's failure is called where it was named by its flake; what has no name of its own
# here (a limit, the sandbox, an undeclared effect) keeps that of `exec`.
_AS_NIX: Final[Mapping[str, str]] = MappingProxyType(
    {
        "exec_failed": "nix_run_failed",
        "exec_stderr_too_large": "nix_stderr_too_large",
        "exec_stdin_write_failed": "nix_stdin_write_failed",
        "exec_stdout_invalid_json": "nix_stdout_invalid_json",
        "exec_stdout_too_large": "nix_stdout_too_large",
        "exec_timeout": "nix_timeout",
    }
)


class NixExecTransport:
    """Resolves and runs the apps that one attempt of a state asks for."""

    def __init__(
        self,
        resolver: Resolver,
        runner: ProgramRunner,
        environ: Mapping[str, str],
        env: LiveIoEnv,
    ) -> None:
        self._resolver = resolver
        self._runner = runner
        self._environ = environ
        self._env = env

    async def call(self, call: IoCall) -> TransportReply:
        """Resolve an app, or resolve and run it (the contract, section 8).

        Raises:
            TransportFailure: a `nix_*` code; for what only the sandbox can know, an `exec_*` one.
        """
        request = parse_request(call.request)
        ref = parse_app_ref(request.app)
        manifest = await self._manifest()
        try:
            require_allowed(ref, manifest.run_config.nix_flake_allowlist)
        except RefError as refused:
            raise nix_failure(refused.reason) from None
        env = self._bound(request) if isinstance(request, RunFlakeAppV1) else {}
        workspace = manifest.workspace
        began = time.monotonic()
        deadline = asyncio.get_running_loop().time() + request.timeout_ms / 1000
        resolution = await self._resolver.resolve(
            ref,
            run=str(self._env.run_id),
            timeout_ms=request.timeout_ms,
            commit=None if workspace is None else workspace.git_commit,
            dirty=workspace is not None and bool(workspace.dirty),
        )
        if isinstance(request, RunFlakeAppV1):
            left_ms = int((deadline - asyncio.get_running_loop().time()) * 1000)
            return await self._run(request, resolution, env, max(1, left_ms))
        meta: dict[str, Json] = {
            "transport": "nix.exec",
            "program": resolution.program_path,
            "nix_version": resolution.nix_version,
            "duration_ms": int((time.monotonic() - began) * 1000),
        }
        return TransportReply(resolution.to_json(), meta)

    async def _manifest(self) -> RunManifest:
        """What the run may resolve is what its manifest says, not what this process was told."""
        try:
            stored = await self._env.stores.artifacts.get(self._env.manifest_id)
        except StorageFailure:
            raise TransportFailure(
                error_info("nix_manifest_lookup_failed", "the run's manifest could not be read")
            ) from None
        try:
            return RunManifest.model_validate_json(stored)
        except ValidationError:
            raise TransportFailure(
                error_info("nix_manifest_invalid", "the run's manifest has another form")
            ) from None

    def _bound(self, request: RunFlakeAppV1) -> dict[str, str]:
        """The program's environment; what is bound has its value from the host's."""
        env = dict(request.env)
        for target, source in request.host_env_bindings.items():
            value = self._environ.get(source)
            if not value:
                raise TransportFailure(
                    error_info(
                        "nix_host_env_missing",
                        "a variable that the program is to get is missing here, or empty",
                        variable=source,
                    )
                )
            env[target] = value
        return env

    async def _run(
        self, request: RunFlakeAppV1, resolution: Resolution, env: dict[str, str], timeout_ms: int
    ) -> TransportReply:
        program = ProgramCall(
            program_path=resolution.program_path,
            argv=tuple(request.argv),
            stdin_json=request.stdin_json,
            timeout_ms=timeout_ms,
            env=env,
            numbers=request.numbers,
        )
        try:
            reply = await self._runner.run(
                program,
                side_effects=self._env.side_effects,
                idempotency_key=self._env.idempotency_key,
                transport="nix.exec",
            )
        except CanonicalError as exc:
            raise invalid_request(f"/stdin_json{exc.pointer}", exc.code, RunFlakeAppV1) from None
        except TransportFailure as failed:
            raise _as_nix(failed, request.timeout_ms) from None
        return TransportReply(reply.response, {**reply.meta, "nix": resolution.to_json()})


def _as_nix(failed: TransportFailure, timeout_ms: int) -> TransportFailure:
    info = failed.info
    code = _AS_NIX.get(info.code)
    if code is None:
        return failed
    details = {key: value for key, value in (info.details or {}).items() if key != "timeout_ms"}
    if code == "nix_timeout":
        details["timeout_ms"] = timeout_ms
    return TransportFailure(error_info(code, info.message, reason="program", **details))


class NixExecFactory:
    """Makes `nix.exec` transports for one site; looks for Nix at the first call, not before."""

    def __init__(
        self,
        site: NixSite,
        policy: ExecPolicy,
        policy_digest: str,
        *,
        stderr_sink: Callable[[bytes], None] | None = None,
    ) -> None:
        self._environ = site.environ
        self._resolver = Resolver(site, stderr_sink=stderr_sink if policy.pass_stderr else None)
        self._runner = ProgramRunner(policy, policy_digest, stderr_sink=stderr_sink)

    @property
    def namespace_group(self) -> str:
        """`nix.exec`."""
        return "nix.exec"

    def make(self, env: LiveIoEnv) -> NixExecTransport:
        """A transport for one attempt."""
        return NixExecTransport(self._resolver, self._runner, self._environ, env)
