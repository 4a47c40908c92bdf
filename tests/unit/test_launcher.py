"""`mfm_ops.sdk.launcher` with the real engine and the reference store."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from mfm_ops.machine.canonical import Json, artifact_id_for_bytes, parse_canonical
from mfm_ops.machine.config import BuildProvenance, RunManifest, WorkspaceProvenance
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import RunPhase, RunResult, Stores
from mfm_ops.machine.errors import RunFailure, SettingsFailure
from mfm_ops.machine.ids import ArtifactId, ContextKey, RunId
from mfm_ops.runtime.context import JsonContext
from mfm_ops.runtime.executor import Engine
from mfm_ops.runtime.router import TransportRegistry
from mfm_ops.sdk.launcher import RunLauncher, default_run_config, run_id_for_key
from mfm_ops.sdk.pipeline import single_op_pipeline
from mfm_ops.sdk.planner import OpRegistry, build_plan, exports
from mfm_ops.storage.memory import MemoryStore
from tests.unit.sdk_ops import Expands, Say, SayConfig, Shout, one_state, pipeline, step

pytestmark = pytest.mark.anyio

BUILD = BuildProvenance(env_allowlist=())


@dataclass
class House:
    """A launcher over a store of its own, and the ops that it knows."""

    store: MemoryStore
    registry: OpRegistry
    launcher: RunLauncher

    async def outputs(self, manifest: RunManifest, result: RunResult) -> dict[str, Json]:
        assert result.final_snapshot_id is not None
        snapshot = parse_canonical(await self.store.get(result.final_snapshot_id))
        assert isinstance(snapshot, dict)
        return exports(manifest, self.registry, snapshot)

    async def runs(self) -> list[RunId]:
        return [listing.run_id for listing in await self.store.list_runs()]


def house(*extra: Expands, workspace: WorkspaceProvenance | None = None) -> House:
    store = MemoryStore()
    registry = OpRegistry([Say(), Shout(), *extra])
    engine = Engine(
        registry=TransportRegistry(),
        build_plan=lambda manifest: build_plan(manifest, registry),
        build=BUILD,
    )
    launcher = RunLauncher(
        registry=registry,
        engine=engine,
        stores=Stores(events=store, artifacts=store),
        make_context=JsonContext,
        build=BUILD,
        workspace=workspace,
    )
    return House(store, registry, launcher)


@pytest.fixture
def home() -> Iterator[House]:
    made = house()
    yield made
    made.store.close()


async def test_a_launched_op_runs_to_its_end_and_has_its_outputs(home: House) -> None:
    prepared = home.launcher.prepare(single_op_pipeline(Say(), SayConfig(text="hi")))
    result = await home.launcher.launch(prepared)
    assert result.phase is RunPhase.Completed
    assert await home.outputs(prepared.manifest, result) == {"said": "hi"}


async def test_a_pipeline_hands_data_on_from_its_input_to_its_last_step(home: House) -> None:
    prepared = home.launcher.prepare(pipeline(step("b", Shout())), given={"said": "in"})
    result = await home.launcher.launch(prepared)
    assert await home.outputs(prepared.manifest, result) == {"shouted": "IN"}


async def test_the_stored_manifest_is_the_prepared_one_byte_for_byte(home: House) -> None:
    prepared = home.launcher.prepare(single_op_pipeline(Say(), SayConfig()))
    await home.launcher.launch(prepared)
    stored = await home.store.get(prepared.manifest_id)
    assert artifact_id_for_bytes(stored) == prepared.manifest_id
    assert RunManifest.model_validate_json(stored) == prepared.manifest


async def test_launching_twice_with_one_key_returns_the_one_run(home: House) -> None:
    prepared = home.launcher.prepare(single_op_pipeline(Say(), SayConfig()))
    first = await home.launcher.launch(prepared, run_key="nightly")
    head = await home.store.head_seq(first.run_id)
    assert await home.launcher.launch(prepared, run_key="nightly") == first
    assert await home.store.head_seq(first.run_id) == head
    assert await home.runs() == [first.run_id]


async def test_launching_twice_without_a_key_makes_two_runs(home: House) -> None:
    prepared = home.launcher.prepare(single_op_pipeline(Say(), SayConfig()))
    first, second = [await home.launcher.launch(prepared) for _ in range(2)]
    assert first.run_id != second.run_id


async def test_another_manifest_with_the_same_key_is_another_run(home: House) -> None:
    results = [
        await home.launcher.launch(
            home.launcher.prepare(single_op_pipeline(Say(), SayConfig(text=text))), run_key="k"
        )
        for text in ("one", "two")
    ]
    assert results[0].run_id != results[1].run_id


async def test_a_failed_run_is_a_result_and_no_exception() -> None:
    def fail(ctx: DynContext) -> None:
        ctx.read(ContextKey("m.b.not_mine"))

    failing = Expands(one_state(fail))
    home = house(failing)
    result = await home.launcher.launch(home.launcher.prepare(pipeline(step("a", failing))))
    assert result.phase is RunPhase.Failed


async def test_a_secret_in_the_config_stores_nothing(home: House) -> None:
    token = "Bearer " + "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "c2lnbmF0dXJlMTIzNDU2"
    prepared = home.launcher.prepare(single_op_pipeline(Say(), SayConfig(text=token)))
    with pytest.raises(RunFailure) as caught:
        await home.launcher.launch(prepared, run_key="k")
    assert caught.value.info.code == "secrets_detected"
    assert caught.value.info.details["pointer"] == "/input_params/pipeline/steps/0/op_config/text"
    assert token not in str(caught.value.info.model_dump_json())
    assert not await home.store.exists(prepared.manifest_id)
    assert await home.runs() == []


def test_the_same_arguments_give_the_same_manifest_id() -> None:
    workspace = WorkspaceProvenance(git_commit="a" * 40, dirty=False)
    ids = {
        house(workspace=workspace).launcher.prepare(single_op_pipeline(Say(), config)).manifest_id
        for config in (SayConfig(), SayConfig(text="hello"), SayConfig(times=1, text="hello"))
    }
    assert len(ids) == 1


def test_config_run_config_workspace_and_input_change_the_manifest_id(home: House) -> None:
    alone = single_op_pipeline(Say(), SayConfig())
    minimal = default_run_config().model_copy(update={"replay_missing_fact_retryable": True})
    elsewhere = house(workspace=WorkspaceProvenance(git_commit="b" * 40)).launcher
    shout = pipeline(step("b", Shout()))
    prepared = [
        home.launcher.prepare(alone),
        home.launcher.prepare(single_op_pipeline(Say(), SayConfig(times=2))),
        home.launcher.prepare(alone, minimal),
        elsewhere.prepare(alone),
        home.launcher.prepare(shout, given={"said": "one"}),
        home.launcher.prepare(shout, given={"said": "two"}),
    ]
    assert len({one.manifest_id for one in prepared}) == len(prepared)


def test_a_manifest_without_a_workspace_does_not_mention_one(home: House) -> None:
    manifest = home.launcher.prepare(single_op_pipeline(Say(), SayConfig())).manifest
    assert "workspace" not in manifest.model_dump(mode="json")


def test_a_run_keys_id_never_changes() -> None:
    assert run_id_for_key(ArtifactId("0" * 64), "k") == "6df9b45a-5d6d-5cdb-a613-eb05e16d88e9"


@pytest.mark.parametrize("key", ["", "caf\udce9"])
def test_an_unusable_run_key_is_refused(key: str) -> None:
    with pytest.raises(SettingsFailure) as caught:
        run_id_for_key(ArtifactId("0" * 64), key)
    assert caught.value.info.code == "usage"
