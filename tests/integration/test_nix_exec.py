"""The transport `nix.exec` over real Nix and the real sandbox: who may ask, and what runs."""

from pathlib import Path
from typing import Any

import pytest

from mfm_ops.machine.artifacts import ArtifactKind
from mfm_ops.machine.canonical import artifact_id_for_bytes, canonical_json_bytes
from mfm_ops.machine.codes import CATALOGUE
from mfm_ops.machine.config import WorkspaceProvenance
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.errors import ErrorInfo, TransportFailure
from mfm_ops.machine.ids import RunId, StateId
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.meta import SideEffectKind
from mfm_ops.machine.transport import LiveIoEnv, TransportReply
from mfm_ops.storage.memory import MemoryStore
from tests.integration.nix_flakes import GOOD, Flakes
from tests.support import config, manifest_of
from transports.nix_exec import NixExecFactory
from transports.nix_refs import Workspace
from transports.policy import ExecPolicy

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def flakes(tmp_path_factory: pytest.TempPathFactory) -> Flakes:
    found = Flakes(tmp_path_factory.mktemp("flakes"))
    found.git("good", GOOD, run="#!/bin/sh\n")
    return found


class Caller:
    """Calls the transport for one attempt of a run whose manifest allows `allowlist`."""

    def __init__(self, flakes: Flakes, roots: Path) -> None:
        self.flakes = flakes
        self.app = f"git+file://{flakes.root}/good"
        self.roots = roots
        self.allowlist: tuple[str, ...] = (self.app,)
        self.workspace: WorkspaceProvenance | None = None
        self.policy = ExecPolicy()
        self.side_effects = SideEffectKind.ReadOnlyIo
        self.environ: dict[str, str] = {}
        self.stored: bytes | None = None

    async def __call__(self, request: dict[str, Any]) -> TransportReply:
        store = MemoryStore()
        run_config = config().model_copy(update={"nix_flake_allowlist": self.allowlist})
        manifest = manifest_of(run_config).model_copy(update={"workspace": self.workspace})
        stored = self.stored
        if stored is None:
            stored = canonical_json_bytes(manifest.model_dump(mode="json"))
        manifest_id = artifact_id_for_bytes(stored)
        if stored:
            await store.put(ArtifactKind.Manifest, stored)
        top = str(self.flakes.root / "good")
        site = self.flakes.site(
            roots=self.roots, workspace=Workspace(top, top), environ=self.environ
        )
        factory = NixExecFactory(site, self.policy, "policy")
        env = LiveIoEnv(
            stores=Stores(events=store, artifacts=store),
            run_id=RunId.random(),
            state_id=StateId("op.main.state"),
            attempt=0,
            side_effects=self.side_effects,
            run_config=run_config,
            manifest_id=manifest_id,
        )
        # Unchecked, as by a caller of its own making.
        call = IoCall.model_construct(namespace="nix.exec", request=request, fact_key=None)
        return await factory.make(env).call(call)

    async def resolve(self, name: str, **fields: Any) -> TransportReply:
        app = f"{self.app}#{name}"
        return await self({"kind": "resolve_flake_app_v1", "app": app, **fields})

    async def run(self, name: str, **fields: Any) -> TransportReply:
        app = f"{self.app}#{name}"
        return await self({"kind": "run_flake_app_v1", "app": app, **fields})

    async def failure(self, name: str, **fields: Any) -> ErrorInfo:
        with pytest.raises(TransportFailure) as caught:
            await self.run(name, **fields)
        info = caught.value.info
        assert set(info.details or {}) <= CATALOGUE[info.code].safe_details
        return info


@pytest.fixture
def caller(flakes: Flakes, tmp_path: Path) -> Caller:
    return Caller(flakes, tmp_path / "roots")


# Who may ask.


async def test_the_response_of_resolving_is_what_pins_the_program(caller: Caller) -> None:
    reply = await caller.resolve("say")
    assert isinstance(reply.response, dict)
    assert reply.response.keys() == {
        *("app", "deriver", "kind", "nar_hash", "nix_version", "pinned", "program_path"),
        *("rev", "store_nar_hash", "store_path", "system", "url"),
    }
    assert reply.meta["program"] == reply.response["program_path"]
    assert reply.meta["transport"] == "nix.exec"


async def test_the_manifests_allowlist_decides(caller: Caller) -> None:
    caller.allowlist = ("github:willyrgf/mfm",)
    info = await caller.failure("say")
    assert (info.code, info.details) == ("nix_app_not_allowed", {"reason": "not_in_allowlist"})
    caller.allowlist = (caller.app + "#other", caller.app + "-evil", caller.app[:-1])
    assert (await caller.failure("say")).code == "nix_app_not_allowed"
    caller.allowlist = (f"{caller.app}#say",)
    assert (await caller.run("say", stdin_json=1)).response == 1


async def test_what_is_not_allowed_starts_no_nix(caller: Caller) -> None:
    caller.allowlist = ()
    caller.environ = {"PATH": "/nonexistent"}
    assert (await caller.failure("say")).code == "nix_app_not_allowed"


async def test_a_manifest_that_is_not_there_allows_nothing(caller: Caller) -> None:
    caller.stored = b""
    assert (await caller.failure("say")).code == "nix_manifest_lookup_failed"


async def test_a_manifest_of_another_form_allows_nothing(caller: Caller) -> None:
    caller.stored = b'{"op_id":"op"}'
    assert (await caller.failure("say")).code == "nix_manifest_invalid"


async def test_the_workspace_is_the_one_that_the_manifest_describes(caller: Caller) -> None:
    caller.app, caller.allowlist = "path:.", ("path:.",)
    assert (await caller.run("say", stdin_json=1)).response == 1
    caller.workspace = WorkspaceProvenance(git_commit="0" * 40)
    info = await caller.failure("say")
    assert info.details == {"reason": "workspace_changed"}


# What runs.


async def test_an_apps_answer_is_what_its_program_printed(caller: Caller) -> None:
    reply = await caller.run("say", stdin_json={"a": [1, "ä"]})
    assert reply.response == {"a": [1, "ä"]}


async def test_the_facts_meta_pins_what_ran(caller: Caller) -> None:
    reply = await caller.run("say")
    resolved = (await caller.resolve("say")).response
    assert isinstance(resolved, dict)
    assert reply.meta["nix"] == resolved
    assert reply.meta["program"] == resolved["program_path"]
    assert (reply.meta["transport"], reply.meta["sandbox"]) == ("nix.exec", "bubblewrap")
    assert isinstance(reply.meta["program_sha256"], str)


async def test_a_program_gets_its_arguments(caller: Caller) -> None:
    assert (await caller.run("nap", argv=["0"])).response == 1


async def test_a_variable_of_the_host_reaches_the_program_by_its_new_name(caller: Caller) -> None:
    caller.environ = {"MY_VALUE": "hello"}
    bindings = {"SECRET_OF_HOST": "MY_VALUE"}
    assert (await caller.run("env", host_env_bindings=bindings)).response == "hello"
    assert (await caller.run("env", env={"SECRET_OF_HOST": "given"})).response == "given"
    assert (await caller.run("env")).response == ""


@pytest.mark.parametrize("environ", [{}, {"MY_VALUE": ""}])
async def test_a_variable_that_the_host_does_not_have_is_named(
    caller: Caller, environ: dict[str, str]
) -> None:
    caller.environ = environ
    info = await caller.failure("env", host_env_bindings={"A": "MY_VALUE"})
    assert (info.code, info.details) == ("nix_host_env_missing", {"variable": "MY_VALUE"})


async def test_a_program_that_fails_is_a_failed_run(caller: Caller) -> None:
    info = await caller.failure("fails")
    assert info.code == "nix_run_failed"
    assert isinstance(info.details, dict)
    assert (info.details["exit_code"], info.details["reason"]) == (3, "program")


async def test_a_program_that_prints_no_json_is_told_from_nix(caller: Caller) -> None:
    info = await caller.failure("talks")
    assert (info.code, info.details["reason"]) == ("nix_stdout_invalid_json", "program")


async def test_one_deadline_holds_for_resolving_and_running(caller: Caller) -> None:
    info = await caller.failure("nap", argv=["1000"], timeout_ms=2_000)
    assert (info.code, info.retryable) == ("nix_timeout", True)
    assert info.details["timeout_ms"] == 2_000


async def test_an_input_without_a_canonical_form_is_the_requests_fault(caller: Caller) -> None:
    info = await caller.failure("say", stdin_json=[1.5])
    assert (info.code, info.details) == (
        "nix_request_invalid",
        {"pointer": "/stdin_json/0", "reason": "json_float"},
    )


async def test_what_only_the_sandbox_knows_keeps_its_name(caller: Caller) -> None:
    caller.policy = ExecPolicy(network=True)
    assert (await caller.failure("say")).code == "exec_effect_undeclared"
    caller.policy = ExecPolicy(allow_prefixes=("/usr/bin",))
    assert (await caller.failure("say")).code == "exec_program_not_allowed"


async def test_a_declared_effect_may_have_the_network(caller: Caller) -> None:
    caller.policy = ExecPolicy(network=True)
    caller.side_effects = SideEffectKind.ApplySideEffect
    assert (await caller.run("say", stdin_json=1)).response == 1


async def test_resolving_is_reading_under_every_policy(caller: Caller) -> None:
    caller.policy = ExecPolicy(network=True)
    assert (await caller.resolve("say")).meta["transport"] == "nix.exec"
