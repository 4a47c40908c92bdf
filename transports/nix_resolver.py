"""From an app ref to a pinned, realised program of the store: what is asked of Nix, and checked.

In this order: what the ref means now, what its app is, building it, what was built. Who may ask is
`nix_exec`'s business, the commands are `nix_commands`', running them `nix_process`'s.
"""

# Plain calls of os: pathlib resolves and normalises more than is wanted here.
# ruff: noqa: PTH100, PTH103, PTH108, PTH118, PTH211

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import anyio

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import TransportFailure
from transports import nix_commands
from transports.nix_answers import (
    AnswerError,
    FlakeMetadata,
    parse_app,
    parse_metadata,
    parse_path_info,
    parse_realised,
)
from transports.nix_commands import NixCommand, Step, nix_environment, nix_system
from transports.nix_failures import nix_failure, reason_of
from transports.nix_process import NixProcesses
from transports.nix_program import built_path, require_built, require_program
from transports.nix_refs import AppRef, RefError, Workspace, flake_target
from transports.policy import NixPolicy, is_below

__all__ = ["NixSite", "Resolution", "Resolver"]

T = TypeVar("T")


class NixSite(NamedTuple):
    """What the site gives Nix.

    `environ` is the host's environment, of which a part is passed on. `roots` is the directory
    below which each run has its garbage-collector roots; None makes none. `workspace` is what
    `path:.` means.
    """

    policy: NixPolicy
    environ: Mapping[str, str]
    roots: str | None = None
    workspace: Workspace | None = None


class Resolution(NamedTuple):
    """A program of the store, and what pins it.

    `url` is the locked flake, `rev` and `nar_hash` its contents; `pinned` is False where they
    came from uncommitted changes. `store_path`, `store_nar_hash`, `deriver` are the program's.
    """

    program_path: str
    app: str
    kind: str
    url: str
    rev: str | None
    nar_hash: str | None
    pinned: bool
    store_path: str
    store_nar_hash: str
    deriver: str | None
    system: str
    nix_version: str

    def to_json(self) -> dict[str, Json]:
        """The response of `resolve_flake_app_v1`."""
        return self._asdict()


class _Ask(NamedTuple):
    """What two callers have to agree in to share an answer."""

    app: str
    target: str
    name: str
    commit: str | None
    dirty: bool


@dataclass(slots=True)
class _Flight:
    """One resolution under way, and how many wait for it. `rooted` is where its root is made."""

    rooted: str | None
    task: asyncio.Task[Resolution] | None = None
    waiting: int = 0
    step: list[Step] = field(default_factory=lambda: ["metadata"])


class Resolver:
    """Resolves apps at one site; who asks for the same at the same time shares the commands."""

    def __init__(
        self, site: NixSite, *, stderr_sink: Callable[[bytes], None] | None = None
    ) -> None:
        self._site = site
        self._stderr_sink = stderr_sink
        self._processes: NixProcesses | None = None
        self._flights: dict[_Ask, _Flight] = {}
        names = os.uname()
        self._system = nix_system(names.sysname, names.machine)

    async def resolve(
        self,
        ref: AppRef,
        *,
        run: str,
        timeout_ms: int,
        commit: str | None = None,
        dirty: bool = False,
    ) -> Resolution:
        """The program that `ref` means, realised and protected for the run named `run`.

        `commit` is what a workspace's tree has to stand at; `dirty`, that it had changes. When
        this returns or raises, no process is left of what it alone needed.

        Raises:
            TransportFailure: `nix_app_not_allowed`, `nix_eval_failed`, `nix_build_failed`,
                `nix_unavailable`, `nix_timeout`, `nix_stdout_too_large`, `nix_stderr_too_large`,
                `nix_stdout_invalid_json`.
        """
        ask = self._ask(ref, commit, dirty)
        roots = self._roots(run, ask)
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        flight = self._flights.get(ask)
        if flight is None:
            flight = self._flights[ask] = _Flight(roots)
            _put_link(roots, None)
            flight.task = asyncio.create_task(self._fly(ask, flight))
        elif roots != flight.rooted:
            _put_link(roots, flight.rooted)
        with anyio.CancelScope(deadline=deadline) as in_time:
            return await self._join(ask, flight)
        assert in_time.cancelled_caught
        raise TransportFailure(
            error_info(
                "nix_timeout",
                "Nix did not end in time, and was stopped with all that it had started",
                reason=flight.step[0],
                timeout_ms=timeout_ms,
            )
        )

    def _ask(self, ref: AppRef, commit: str | None, dirty: bool) -> _Ask:
        try:
            target = flake_target(ref, self._site.workspace)
        except RefError as refused:
            raise nix_failure(refused.reason) from None
        workspace = self._site.workspace
        if ref.in_workspace and workspace is not None:
            inside = os.path.join(workspace.directory, ref.flake.removeprefix("path:"))
            if not is_below(os.path.realpath(inside), workspace.git_top or workspace.directory):
                raise nix_failure("outside_workspace")
        if not ref.in_workspace:
            return _Ask(ref.text, target, ref.name, None, dirty=False)
        return _Ask(ref.text, target, ref.name, commit, dirty)

    def _roots(self, run: str, ask: _Ask) -> str | None:
        """Where the links lie that protect what this run gets of `ask`: its first one's name."""
        if self._site.roots is None:
            return None
        directory = os.path.join(self._site.roots, run)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        except OSError:
            raise nix_failure("root_failed") from None
        name = hashlib.sha256(f"{ask.target}#{ask.name}".encode()).hexdigest()[:32]
        return os.path.join(directory, name)

    async def _join(self, ask: _Ask, flight: _Flight) -> Resolution:
        """Wait for `flight`; whoever leaves last before its end takes it down."""
        assert flight.task is not None
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if flight.waiting == 0:
                if self._flights.get(ask) is flight:
                    del self._flights[ask]
                flight.task.cancel()
                with anyio.CancelScope(shield=True):
                    await _outwait(flight.task)

    async def _fly(self, ask: _Ask, flight: _Flight) -> Resolution:
        step = flight.step
        flake = _read(parse_metadata, await self._run(nix_commands.metadata(ask.target), step))
        self._require_allowed(flake, ask)
        command = nix_commands.evaluate(flake.url, ask.name, self._system)
        app = _read(parse_app, await self._run(command, step))
        require_program(app)
        command = nix_commands.realise(app.installables, flight.rooted)
        realised = _read(parse_realised, await self._run(command, step))
        built = tuple(built_path(path) for path in realised)
        store_path, leads_to = require_built(app.program, built)
        if leads_to not in built:
            # Of what it refers to, only what the store knows of is protected and pinned.
            said = await self._run(nix_commands.requisites(store_path), step)
            if leads_to not in _read(parse_realised, said):
                raise nix_failure("context_wrong")
        said = await self._run(nix_commands.path_info(store_path), step)
        info = _read(lambda stdout: parse_path_info(stdout, store_path), said)
        if info is None:
            raise nix_failure("collected")
        return Resolution(
            program_path=app.program,
            app=ask.app,
            kind=app.kind,
            url=flake.url,
            rev=flake.rev,
            nar_hash=flake.nar_hash,
            pinned=not flake.dirty,
            store_path=store_path,
            store_nar_hash=info.nar_hash,
            deriver=info.deriver,
            system=self._system,
            nix_version=app.nix_version,
        )

    def _require_allowed(self, flake: FlakeMetadata, ask: _Ask) -> None:
        policy = self._site.policy
        # Nix does not always see it, as of a tree whose path needs escapes.
        if (flake.dirty or ask.dirty) and not policy.allow_dirty:
            raise nix_failure("dirty")
        if flake.rev is None and policy.require_locked_rev:
            raise nix_failure("no_locked_rev")
        if ask.commit is not None and not flake.dirty and flake.rev != ask.commit:
            raise nix_failure("workspace_changed")

    async def _run(self, command: NixCommand, step: list[Step]) -> bytes:
        """The standard output of a command that went well."""
        step[0] = command.step
        if self._processes is None:
            self._processes = self._find_nix()
        try:
            result = await self._processes.run(command)
        except OSError:
            # It may have been replaced since: look again at the next call.
            self._processes = None
            raise nix_failure("not_started") from None
        if result.overflow is not None:
            stream = "output" if result.overflow == "stdout" else "error"
            raise TransportFailure(
                error_info(
                    f"nix_{result.overflow}_too_large",
                    f"Nix wrote too much to standard {stream}",
                    reason=command.step,
                )
            )
        if result.exit_code != 0:
            raise nix_failure(reason_of(command.step, result.exit_code, result.stderr))
        return result.stdout

    def _find_nix(self) -> NixProcesses:
        site = self._site
        wanted = site.policy.program or "nix"
        found = shutil.which(wanted, path=site.environ.get("PATH", os.defpath))
        if found is None:
            raise nix_failure("missing")
        environment = nix_environment(site.environ)
        return NixProcesses(os.path.abspath(found), environment, stderr_sink=self._stderr_sink)


def _put_link(link: str | None, target: str | None) -> None:
    """Make way at `link` for a root, or let it hold another run's: `target`, before it is there.

    Whoever removes roots keeps those that are held so.
    """
    if link is None:
        return
    try:
        with suppress(FileNotFoundError):
            os.unlink(link)
        if target is not None:
            os.symlink(target, link)
    except OSError:
        raise nix_failure("root_failed") from None


async def _outwait(task: asyncio.Task[Resolution]) -> None:
    """Wait for a cancelled task's end, which is bounded, through any number of cancellations."""
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue
    if not task.cancelled():
        # Looked at, so that nobody complains that it was not.
        task.exception()


def _read(parse: Callable[[bytes], T], stdout: bytes) -> T:
    try:
        return parse(stdout)
    except AnswerError:
        raise TransportFailure(
            error_info(
                "nix_stdout_invalid_json",
                "Nix answered in a form that this version of mfm does not know",
                reason="unknown_form",
            )
        ) from None
