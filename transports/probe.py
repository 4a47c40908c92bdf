"""Really tries the sandbox, for `mfm doctor`: does it work here, and if not, why and what to do.

Runs this Python in a sandbox of the policy's kind; no program of the policy is run.
"""

import asyncio
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from anyio import to_thread

from transports.bubblewrap import explain_refusal, find_bubblewrap, read_complaint
from transports.child import ChildSpec
from transports.launch import rlimits, sandbox_command
from transports.policy import ExecPolicy
from transports.process_exec import run_child
from transports.sandbox import Mounts
from transports.view import ProgramView

__all__ = ["SandboxProbe", "probe_sandbox"]

_PROBE_S = 10.0


@dataclass(frozen=True, slots=True)
class SandboxProbe:
    """What `mfm doctor` says of the sandbox.

    `reason` is a word of a closed set (`missing`, `does_not_run`, `apparmor`, `userns_disabled`,
    `container`, `refused`, `setup_failed`, `off`), `hint` says what to do; both are None when all
    is well.
    `absent_paths` are paths of the policy that this host does not have.
    """

    backend: str
    works: bool
    version: str | None
    reason: str | None
    hint: str | None
    absent_paths: tuple[str, ...]


async def probe_sandbox(policy: ExecPolicy) -> SandboxProbe:
    """Try the sandbox of `policy` on this host; raises nothing that it can explain."""
    absent = _absent_paths(policy)
    if policy.sandbox == "off":
        hint = "the policy turns the sandbox off: programs run with all that this user may do"
        return SandboxProbe("off", True, None, "off", hint, absent)
    bubblewrap = await to_thread.run_sync(find_bubblewrap)
    if bubblewrap is None:
        found = shutil.which("bwrap")
        if found is not None:
            hint = f"{found} fails when it is asked for its version: install `bubblewrap` anew"
            return SandboxProbe("bubblewrap", False, None, "does_not_run", hint, absent)
        hint = "install the package `bubblewrap`"
        return SandboxProbe("bubblewrap", False, None, "missing", hint, absent)
    mounts = Mounts(read_only=("/",))
    view = ProgramView(_python(), None, ())
    trial = replace(policy, read_only_paths=("/",), read_write_paths=())
    argv = ("-I", "-S", "-c", "pass")
    with sandbox_command(bubblewrap, trial, mounts, view, argv=argv, env={}) as command:
        spec = ChildSpec(
            command=command,
            stdin=b"",
            deadline=asyncio.get_running_loop().time() + _PROBE_S,
            rlimits=rlimits(replace(trial, cpu_s=None)),
        )
        result = await run_child(spec)
    if result.ending == "exited" and result.exit_code == 0:
        return SandboxProbe("bubblewrap", True, bubblewrap.version, None, None, absent)
    reason, hint = "setup_failed", "bubblewrap could not set a sandbox up on this host"
    if result.ending == "not_started" and read_complaint(result.stderr).trouble == "refused":
        reason, hint = explain_refusal()
    return SandboxProbe("bubblewrap", False, bubblewrap.version, reason, hint, absent)


def _absent_paths(policy: ExecPolicy) -> tuple[str, ...]:
    named = (*policy.allow_prefixes, *policy.read_only_paths, *policy.read_write_paths)
    return tuple(path for path in named if not Path(path).exists())


def _python() -> str:
    return str(Path(sys.executable).resolve())
