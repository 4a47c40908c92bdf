"""Records the scenarios that have no history yet: `make histories`. It never writes one again."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import anyio
import orjson

from mfm_ops.machine.canonical import Json, artifact_id_for_json, canonical_json_bytes
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import (
    BackoffPolicy,
    Duration,
    EventProfile,
    ExecutionMode,
    Fixed,
    RetryPolicy,
    RunConfig,
)
from mfm_ops.machine.engine import Stores
from mfm_ops.machine.errors import ErrorCategory, ErrorInfo, TransportFailure
from mfm_ops.machine.ids import ErrorCode, RunId, StateId
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.meta import Tag
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.context import JsonContext
from mfm_ops.runtime.control import Requester, resolve_effect
from mfm_ops.runtime.executor import Engine
from mfm_ops.runtime.fork import ForkRun, fork_run
from mfm_ops.runtime.records import Resolution
from mfm_ops.runtime.router import TransportRegistry
from mfm_ops.sdk.launcher import RunLauncher, default_run_config
from mfm_ops.sdk.operation import OpConfig
from mfm_ops.sdk.pipeline import single_op_pipeline
from mfm_ops.sdk.planner import build_plan
from mfm_ops.storage.memory import MemoryStore
from tests.histories.files import DIGESTS, FOLDER, digests, files, save
from tests.histories.ops import OPS, SCENARIOS, Scenario
from tests.support import BUILD, ScriptedFactory, scripted_sources
from transports.exec import ExecFactory
from transports.policy import ExecPolicy

FORKED = "f0f0f0f0-0000-4000-8000-000000000000"


class World:
    """What the recorded runs talked to. It stops where a scenario is to be interrupted."""

    def __init__(self, scenario: Scenario) -> None:
        self._stop_at = scenario.interrupted_at
        self._flaky = 0
        self.scope = anyio.CancelScope()

    async def answer(self, call: IoCall, env: LiveIoEnv) -> Json:
        name = call.request["name"]
        if call.namespace == "history.refusing":
            raise TransportFailure(error_info("exec_failed", "the far side refused"))
        if call.namespace == "history.flaky":
            self._flaky += 1
            if self._flaky < 3:
                raise TransportFailure(_busy())
        if name == self._stop_at:
            self._stop_at = None
            self.scope.cancel()
            await anyio.sleep_forever()
        return {"about": name, "length": len(name), "by": str(env.state_id)}


def _busy() -> ErrorInfo:
    return ErrorInfo(
        code=ErrorCode("far_side_busy"),
        category=ErrorCategory.Rpc,
        retryable=True,
        message="the far side is busy",
    )


def run_config(scenario: Scenario) -> RunConfig:
    delay = BackoffPolicy(Fixed=Fixed(delay=Duration.from_millis(0)))
    return default_run_config().model_copy(
        update={
            "retry_policy": RetryPolicy(max_attempts=3, backoff=delay),
            "event_profile": EventProfile(scenario.profile),  # type: ignore[arg-type]
            "skip_tags": tuple(map(Tag, scenario.skip_tags)),
            "execution_mode": ExecutionMode.Sequential
            if scenario.at_once == 1
            else ExecutionMode.fan_out_join(scenario.at_once),
        }
    )


async def record(name: str, folder: Path) -> None:
    """Run a scenario for real, and save what it left."""
    scenario, store = SCENARIOS[name], MemoryStore()
    world = World(scenario)
    policy = ExecPolicy(allow_prefixes=("/usr/bin",))
    digest = artifact_id_for_json(policy.to_json())
    engine = Engine(
        registry=TransportRegistry(
            [ScriptedFactory(world.answer, "history"), ExecFactory(policy, digest)]
        ),
        build_plan=lambda manifest: build_plan(manifest, OPS),
        build=BUILD,
        policy=policy.to_json(),
        sources=scripted_sources(),
    )
    stores = Stores(events=store, artifacts=store)
    launcher = RunLauncher(
        registry=OPS,
        engine=engine,
        stores=stores,
        make_context=lambda values: JsonContext({**values}),
        build=BUILD,
    )
    prepared = launcher.prepare(single_op_pipeline(scenario.op, OpConfig()), run_config(scenario))
    with world.scope:
        await launcher.launch(prepared, run_key=name)
    (run,) = await store.list_runs()
    run_id = run.run_id
    sources = scripted_sources()
    if scenario.then == "resolve":
        asks = Requester("somebody", "asked the far side", sources.now_millis)
        found: Json = {"receipt": 7}
        state_id = StateId(f"{name}.main.pay")
        await resolve_effect(stores, run_id, state_id, Resolution.completed, asks, result=found)
    if scenario.then == "fork":
        fork = ForkRun(
            source=run_id,
            state_id=StateId(f"{name}.main.left"),
            overrides={f"{name}.main.value": "changed"},
            manifest=prepared.manifest,
            plan=prepared.plan,
            run_id=RunId(FORKED),
        )
        await fork_run(stores, fork, sources)
        run_id = fork.run_id
    if scenario.then is not None:
        await engine.resume(stores, run_id)
    bodies = [_of_no_machine(body) for body in await store.read_raw(run_id, 1)]
    await save(store, bodies, folder)


def _of_no_machine(body: bytes) -> bytes:
    """An event as it was stored, but that a driver's mark names no real host and process."""
    envelope = orjson.loads(body)
    event = envelope["event"].get("Domain")
    if event is not None and event["name"] == "mfm.driver":
        event["payload"] |= {
            "host": "recorder",
            "pid": 1,
            "started": 0,
            "boot_id": "",
            "pid_ns": "",
        }
    return canonical_json_bytes(envelope)


def main(names: Sequence[str] = tuple(SCENARIOS)) -> None:
    """Record what is missing, and add its digests to the list."""
    known = digests() if DIGESTS.exists() else {}
    for name in names:
        if not (FOLDER / name).exists():
            asyncio.run(record(name, FOLDER / name))
            print(f"recorded {name}")  # noqa: T201
    new = {path: digest for path, digest in files().items() if path not in known}
    with DIGESTS.open("a") as out:
        out.writelines(f"{digest}  {path}\n" for path, digest in new.items())


if __name__ == "__main__":
    main()
