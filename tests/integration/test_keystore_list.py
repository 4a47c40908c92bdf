"""`keystore_list` as a run: real keystores, transport, engine and SQLite store."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from mfm_ops.machine.canonical import parse_canonical
from mfm_ops.machine.config import BuildProvenance, IoMode
from mfm_ops.machine.engine import RunPhase, RunResult, Stores
from mfm_ops.machine.errors import ErrorInfo
from mfm_ops.machine.events import EventEnvelope
from mfm_ops.ops.keystore import KeystoreList, KeystoreListConfig
from mfm_ops.runtime.context import JsonContext
from mfm_ops.runtime.executor import Engine
from mfm_ops.runtime.router import TransportRegistry
from mfm_ops.sdk.launcher import PreparedRun, RunLauncher, default_run_config
from mfm_ops.sdk.pipeline import single_op_pipeline
from mfm_ops.sdk.planner import OpRegistry, build_plan, exports
from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store
from transports.keystore import KeystoreFactory

pytestmark = pytest.mark.anyio

OP = KeystoreList()
REGISTRY = OpRegistry([OP])
BUILD = BuildProvenance(env_allowlist=())


class House:
    """A store of its own, with the directory of keystores that is the default one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keys = root / "keys"
        self.default_dir: str | None = None
        self.default_named = False
        self.store: SqliteStore = open_sqlite_store(root / "mfm.sqlite")

    def add(self, file: str, **fields: Any) -> str:
        """Put a keystore of a new account into `keys`; its address."""
        account = Account.create()
        keystore = Account.encrypt(account.key, "correct horse", kdf="pbkdf2", iterations=1)
        self.keys.mkdir(exist_ok=True)
        (self.keys / file).write_text(json.dumps(keystore | fields))
        return str(account.address)

    def launcher(self) -> RunLauncher:
        transports = TransportRegistry(
            [KeystoreFactory(self.default_dir, default_named=self.default_named)]
        )
        return RunLauncher(
            registry=REGISTRY,
            engine=Engine(
                registry=transports,
                build_plan=lambda manifest: build_plan(manifest, REGISTRY),
                build=BUILD,
            ),
            stores=Stores(events=self.store, artifacts=self.store),
            make_context=JsonContext,
            build=BUILD,
        )

    def prepare(self, **config: Any) -> PreparedRun:
        return self.launcher().prepare(single_op_pipeline(OP, KeystoreListConfig(**config)))

    async def run(self, **config: Any) -> RunResult:
        return await self.launcher().launch(self.prepare(**config))

    async def outputs(self, **config: Any) -> Any:
        """The exports of a run that has to succeed."""
        prepared = self.prepare(**config)
        result = await self.launcher().launch(prepared)
        assert result.phase is RunPhase.Completed
        return await self.outputs_of(prepared, result)

    async def outputs_of(self, prepared: PreparedRun, result: RunResult) -> Any:
        assert result.final_snapshot_id is not None
        snapshot = parse_canonical(await self.store.get(result.final_snapshot_id))
        assert isinstance(snapshot, dict)
        return exports(prepared.manifest, REGISTRY, snapshot)

    async def events(self, result: RunResult) -> list[EventEnvelope]:
        return await self.store.read_range(result.run_id, 1)

    async def failure(self, **config: Any) -> ErrorInfo:
        """Why a run fails that has to."""
        result = await self.run(**config)
        assert result.phase is RunPhase.Failed
        failed = [
            one.event.Kernel.StateFailed
            for one in await self.events(result)
            if one.event.variant == "Kernel" and one.event.Kernel.variant == "StateFailed"
        ]
        assert len(failed) == 1
        return failed[0].error.info


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.store.close()


async def test_keystores_are_listed_by_label_with_their_addresses(house: House) -> None:
    treasury, deployer = house.add("treasury"), house.add("deployer")
    outputs = await house.outputs(keystore=str(house.keys))
    assert [(one["label"], one["address"]) for one in outputs["keystores"]] == [
        ("deployer", deployer),
        ("treasury", treasury),
    ]
    assert (outputs["warnings"], outputs["hint"]) == ([], None)


async def test_a_broken_file_is_a_warning_and_the_rest_still_shows(house: House) -> None:
    house.add("deployer")
    (house.keys / "notes.txt").write_text("the key is with Ada")
    outputs = await house.outputs(keystore=str(house.keys))
    assert [one["label"] for one in outputs["keystores"]] == ["deployer"]
    assert [one["file"] for one in outputs["warnings"]] == ["notes.txt"]


async def test_a_named_directory_that_does_not_exist_fails_the_run_at_once(house: House) -> None:
    info = await house.failure(keystore=str(house.keys))
    assert (info.code, info.details) == ("keystore_dir_missing", {"dir": str(house.keys)})


async def test_a_default_that_does_not_exist_is_an_empty_list_with_a_hint(house: House) -> None:
    house.default_dir = str(house.keys)
    outputs = await house.outputs()
    assert outputs["keystores"] == []
    assert outputs["hint"].startswith(f"{house.keys} does not exist")


async def test_a_default_that_was_named_and_does_not_exist_fails_the_run(house: House) -> None:
    house.default_dir, house.default_named = str(house.keys), True
    assert (await house.failure()).code == "keystore_dir_missing"


async def test_the_default_directory_is_in_the_facts_meta_and_not_in_the_manifest(
    house: House,
) -> None:
    house.add("deployer")
    house.default_dir = str(house.keys)
    prepared = house.prepare()
    assert str(house.root) not in prepared.manifest.model_dump_json()
    result = await house.launcher().launch(prepared)
    (fact,) = [
        one.event.Domain.payload
        for one in await house.events(result)
        if one.event.variant == "Domain" and one.event.Domain.name == "fact_recorded"
    ]
    assert fact["meta"]["dir"] == str(house.keys)


async def test_a_relative_directory_makes_one_manifest_in_every_checkout(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    house.add("deployer")
    (tmp_path / "other" / "keys").mkdir(parents=True)
    manifests, counts = set(), []
    for place in (tmp_path, tmp_path / "other"):
        monkeypatch.chdir(place)
        prepared = house.prepare(keystore="keys")
        manifests.add(prepared.manifest_id)
        result = await house.launcher().launch(prepared)
        counts.append(len((await house.outputs_of(prepared, result))["keystores"]))
    assert len(manifests) == 1
    assert counts == [1, 0]


async def test_what_was_listed_once_stays_listed_under_its_run_key(house: House) -> None:
    house.add("deployer")
    prepared = house.prepare(keystore=str(house.keys))
    first = await house.launcher().launch(prepared, run_key="nightly")
    house.add("treasury")
    again = await house.launcher().launch(prepared, run_key="nightly")
    assert again == first


async def test_a_replay_selects_from_the_facts_without_the_directory(house: House) -> None:
    house.add("deployer")
    config = KeystoreListConfig(keystore=str(house.keys), show_addresses=False)
    pipeline = single_op_pipeline(OP, config)
    prepared = house.launcher().prepare(pipeline)
    recorded = await house.launcher().launch(prepared)
    (house.keys / "deployer").unlink()
    house.keys.rmdir()
    replay = house.launcher().prepare(
        pipeline,
        default_run_config().model_copy(
            update={"io_mode": IoMode.Replay, "replay_of": recorded.run_id}
        ),
    )
    result = await house.launcher().launch(replay)
    assert result.phase is RunPhase.Completed
    assert result.final_snapshot_id == recorded.final_snapshot_id


async def test_a_thousand_labels_are_filtered_and_sorted(house: House) -> None:
    house.add("account-0")
    sound = (house.keys / "account-0").read_bytes()
    for n in range(1, 1000):
        (house.keys / f"account-{n}").write_bytes(sound)
    outputs = await house.outputs(keystore=str(house.keys), filter_label="-99")
    assert [one["label"] for one in outputs["keystores"]] == [
        "account-99",
        *(f"account-99{digit}" for digit in range(10)),
    ]
