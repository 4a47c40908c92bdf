"""The runs whose effects go to the counting server, and all that is done to them by others.

A scene is an op; what a process does with its run is an act. Each act may be killed and done
again, as the person or the machine would that did it.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import anyio

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.config import RunConfig
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.errors import RunFailure
from mfm_ops.machine.ids import ContextKey, FactKey, OpId, OpPath, RunId, StateId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.plan import DependencyEdge, StateGraph, StateNode
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.runtime.control import Requester, close_cancelled, request_cancel, resolve_effect
from mfm_ops.runtime.fork import ForkRun, fork_run
from mfm_ops.runtime.manifests import load_manifest
from mfm_ops.runtime.persist import Persister
from mfm_ops.runtime.records import Resolution
from mfm_ops.sdk.child_runs import child_outputs, spawn_op
from mfm_ops.sdk.operation import AnyOperation, Operation, OpIo
from mfm_ops.sdk.planner import OpRegistry, build_plan
from mfm_ops.storage.sqlite import SqliteStore
from tests.contracts.family import Family, MemberConfig
from tests.crash.counting_server import ask_server, receipt
from tests.crash.door import Watcher
from tests.crash.plans import Place, mixed_config, sources
from tests.support import (
    FunctionState,
    Handler,
    ScriptedFactory,
    ask,
    effect,
    failure,
    reads,
    state,
)

__all__ = ["EFFECTS", "FAILURES", "FORK", "KEY", "act", "family_of", "scene_config", "scene_of"]

FORK = RunId("00000000-0000-4000-8000-00000000f04c")
"""The run that a fork makes: the same in each round, as it is for one person who tries again."""

KEY = "the-key"
FAILURES = 2


def sending(*whats: str, fails: int = 0) -> Handler:
    """Has one effect after the other, and keeps what the server answered."""

    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        for what in whats:
            request: Json = {"what": what, "fails": fails}
            ctx.write(ContextKey(what), (await io.call(ask(request, namespace="till"))).response)

    return handle


async def sends_at_once(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    async def send(what: str) -> None:
        await sending(what)(ctx, io, rec)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send, "left")
        tasks.start_soon(send, "right")


async def count(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """Depends on all that came before it."""
    ctx.write(ContextKey("answer"), [*sorted(ctx.dump())])


def spawning(*names: str) -> Handler:
    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        for name in names:
            ctx.write(ContextKey(name), str(await spawn_op(io, name)))

    return handle


def gathering(*names: str) -> Handler:
    async def handle(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        for name in names:
            child = RunId(str(ctx.read(ContextKey(name))))
            ctx.write(ContextKey(f"{name}_said"), (await child_outputs(io, child))["answer"])

    return handle


async def fails_in_the_end(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
    """Once its child has paid, while the other one may still be at work."""
    await gathering("payer")(ctx, io, rec)
    raise failure(retryable=False)


SCENES: dict[str, tuple[Mapping[str, FunctionState], tuple[str, ...]]] = {
    "bare": (
        {"begin": state(count), "charge": effect(sending("charge")), "end": state(count)},
        ("begin>charge>end",),
    ),
    "keyed": (
        {"begin": state(count), "charge": effect(sending("charge"), KEY), "end": state(count)},
        ("begin>charge>end",),
    ),
    "pair": (
        {"pair": effect(sending("first", "second")), "end": state(count)},
        ("pair>end",),
    ),
    "both": (
        {"both": effect(sends_at_once), "end": state(count)},
        ("both>end",),
    ),
    "wave": (
        {
            "begin": state(count),
            "bare1": effect(sending("bare1")),
            "bare2": effect(sending("bare2")),
            "keyed1": effect(sending("keyed1"), "key-1"),
            "keyed2": effect(sending("keyed2"), "key-2"),
            "end": state(count),
        },
        tuple(f"begin>{one}>end" for one in ("bare1", "bare2", "keyed1", "keyed2")),
    ),
    "flaky": (
        {"charge": effect(sending("charge", fails=FAILURES), KEY), "end": state(count)},
        ("charge>end",),
    ),
    "parent": (
        {
            "spawn": reads(spawning("payer", "chief")),
            "gather": reads(gathering("payer", "chief")),
            "end": state(count),
        },
        ("spawn>gather>end",),
    ),
    "doomed": (
        {"spawn": reads(spawning("payer", "chief")), "fail": reads(fails_in_the_end)},
        ("spawn>fail",),
    ),
    "payer": (
        {"charge": effect(sending("paid")), "end": state(count)},
        ("charge>end",),
    ),
    "chief": (
        {"ask": reads(spawning("clerk")), "hear": reads(gathering("clerk")), "end": state(count)},
        ("ask>hear>end",),
    ),
    "clerk": (
        {"stamp": effect(sending("stamped"), KEY), "end": state(count)},
        ("stamp>end",),
    ),
}

EFFECTS: dict[str, Mapping[str, str | None]] = {
    "bare": {"charge": None},
    "keyed": {"charge": KEY},
    "pair": {"first": None, "second": None},
    "both": {"left": None, "right": None},
    "wave": {"bare1": None, "bare2": None, "keyed1": "key-1", "keyed2": "key-2"},
    "flaky": {"charge": KEY},
    "parent": {"paid": None, "stamped": KEY},
    "doomed": {"paid": None, "stamped": KEY},
}
"""What each scene sends, with which idempotency key."""


def scene_of(name: str) -> AnyOperation:
    """The op of a scene."""
    states, arrows = SCENES[name]

    class Scene(Operation[MemberConfig]):
        op_id = OpId(name)
        op_version = "1"
        summary = "A scene of the crash suite."
        config_model = MemberConfig

        def io(self) -> OpIo:
            return OpIo(exports=("answer",))

        def expand(
            self, op_path: OpPath, config: MemberConfig, run_config: RunConfig
        ) -> StateGraph:
            ids = {local: StateId(f"{op_path}.{local}") for local in states}
            pairs = [pair for arrow in arrows for pair in pairwise(arrow.split(">"))]
            return StateGraph(
                tuple(StateNode(ids[local], each) for local, each in states.items()),
                tuple(DependencyEdge.between(ids[one], ids[two]) for one, two in pairs),
            )

    return Scene()


def scene_config(scene: str) -> RunConfig:
    """A wave runs at once, all else one by one; failures are tried again."""
    return mixed_config(wave=scene == "wave")


def family_of(store: SqliteStore, answer: Callable[[IoCall, LiveIoEnv], Any]) -> Family:
    """An engine that knows all scenes."""
    world = ScriptedFactory(answer, group="till")
    return Family(store, {name: scene_of(name) for name in SCENES}, world=world, sources=sources())


async def act(store: SqliteStore, place: Place, watcher: Watcher, job: list[Any]) -> str:
    """Do one act; the phase of the run that it drove, if it drove one.

    A job is the server's port, the scene's name, the act's name, and its arguments.
    """
    port, scene, name, *arguments = job

    async def answer(call: IoCall, env: LiveIoEnv) -> Any:
        return await ask_server(port, str(place.world), watcher, call, env)

    family, config = family_of(store, answer), scene_config(scene)
    run_id = family.id_of(scene, config)
    asks = Requester("somebody", "because", lambda: 1_000_000)
    match name:
        case "drive":
            return (await family.start(scene, config)).phase.value
        case "resolve":
            # A child's effect is its own run's.
            owner, state_id, resolution, key, what = arguments
            await resolve_effect(
                family.stores,
                RunId(owner),
                StateId(state_id),
                Resolution(resolution),
                asks,
                result=receipt(what),
                key=FactKey(key),
            )
        case "cancel":
            await request_cancel(family.stores, run_id, asks)
        case "close":
            await request_cancel(family.stores, run_id, asks)
            await close_cancelled(family.stores, run_id, asks)
        case "fork":
            return await _fork(family, run_id, arguments[0])
        case _:
            raise ValueError(name)
    return ""


async def _fork(family: Family, source: RunId, from_: str) -> str:
    """Fork and go on, as `mfm run fork`; a fork that is stored already is gone on with."""
    if not await family.store.head_seq(FORK):
        manifest_id = (await family.history(source)).manifest_id
        manifest = await load_manifest(Persister(family.store), manifest_id)
        fork = ForkRun(
            source=source,
            state_id=StateId(from_),
            overrides={},
            manifest=manifest,
            plan=build_plan(manifest, OpRegistry(family.ops.values())),
            run_id=FORK,
        )
        try:
            await fork_run(family.stores, fork, family.sources)
        except RunFailure as failure:
            if failure.info.code != "run_exists":
                raise
    return (await family.resume(FORK)).phase.value
