"""The runs that the crash suites drive: a plan with one state of each kind, and the world it asks.

Each call of a transport leaves a line in the file `calls`, the fact's key, and each effect a line
in a file of its own: written without a buffer, so that no kill undoes them.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from mfm_ops.machine.canonical import Json, artifact_id_for_bytes
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.config import BackoffPolicy, Duration, ExecutionMode, Fixed, RunConfig
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.errors import TransportFailure
from mfm_ops.machine.events import DomainEvent
from mfm_ops.machine.ids import ContextKey, FactKey, RunId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.plan import ExecutionPlan
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.transport import (
    LiveIoEnv,
    LiveIoTransport,
    LiveIoTransportFactory,
    TransportReply,
)
from mfm_ops.runtime.fact_keys import default_key, request_bytes
from mfm_ops.runtime.sources import Sources
from tests.crash.door import BACKOFF_S, Step, Watcher, raw_write
from tests.support import FunctionState, ask, config, effect, plan_of, reads, state
from transports.exec import ExecFactory
from transports.policy import ExecPolicy

__all__ = ["RUN", "Place", "World", "mixed_config", "mixed_plan", "sources"]

RUN = RunId("00000000-0000-4000-8000-00000000c4a5")
"""All rounds drive the same run, each in a store of its own: its facts' keys hold its id."""

FLAKES = 2
LARGE = 200_000
WIDTH = 5


@dataclass(frozen=True)
class Place:
    """One round's directory, and the programs that all rounds share.

    `world` holds what is not the store's; it may be on another disk.
    """

    directory: Path
    programs: Path
    world: Path
    wave: bool = False
    """Whether the states that can run at once do."""

    @property
    def store(self) -> Path:
        return self.directory / "run.sqlite"

    @property
    def calls(self) -> Path:
        return self.world / "calls"

    @property
    def mount(self) -> Path:
        """What the effectful program may write to."""
        return self.world / "mount"

    @property
    def charges(self) -> Path:
        return self.world / "charges"

    @property
    def trace(self) -> Path:
        """The boundaries that were passed, a line each."""
        return self.world / "trace"

    @property
    def log(self) -> Path:
        """The steps that were taken."""
        return self.world / "log"

    def called(self) -> Counter[str]:
        """How often each fact key was asked for in the world."""
        return Counter(_lines(self.calls))

    def deliveries(self) -> dict[str, list[str]]:
        """The idempotency key of each delivery, by the effect."""
        return {"charge": _lines(self.charges), "press": _lines(self.mount / "pressed")}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def sources() -> Sources:
    """A clock that stands still and random bytes that are none: every process has the same."""
    return Sources(lambda: 1_000_000, lambda n: sha256(b"%d" % n).digest()[:n].ljust(n, b"."))


class World:
    """Transports that count their calls: a scripted one, and `exec` with and without effects."""

    def __init__(self, place: Place, watcher: Watcher) -> None:
        self.place = place
        self.watcher = watcher

    def factories(self) -> Sequence[LiveIoTransportFactory]:
        bin_dir = str(self.place.programs)
        mount = str(self.place.mount)
        reading = ExecPolicy(allow_prefixes=(bin_dir,))
        writing = ExecPolicy(allow_prefixes=(bin_dir,), read_write_paths=(mount,))
        return [
            _Counted("test", None, self),
            _Counted("read", ExecFactory(reading, "reading"), self),
            _Counted("press", ExecFactory(writing, "writing"), self),
        ]

    def note(self, path: Path, line: str) -> None:
        """Add a line that outlives this process."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        raw_write(fd, f"{line}\n".encode())
        os.close(fd)

    async def answer(self, call: IoCall, env: LiveIoEnv) -> TransportReply:
        request = call.request
        assert isinstance(request, dict)
        if "flaky" in request and self.place.called()[str(call.fact_key)] <= FLAKES:
            info = error_info("io_transport_crashed", "not yet", exception="Flake")
            raise TransportFailure(info.model_copy(update={"retryable": True}))
        if "charge" in request:
            self.note(self.place.charges, str(env.idempotency_key))
        if "large" in request:
            return TransportReply("0123456789 " * (LARGE // 11))
        return TransportReply({"answer": artifact_id_for_bytes(request_bytes(call))[:8]})


class _Counted:
    """A transport group whose calls leave a line each; without a factory the world answers."""

    def __init__(self, group: str, inner: ExecFactory | None, world: World) -> None:
        self._group = group
        self._inner = inner
        self._world = world

    @property
    def namespace_group(self) -> str:
        return self._group

    def make(self, env: LiveIoEnv) -> LiveIoTransport:
        return _CountedTransport(self._inner, self._world, env)


class _CountedTransport:
    def __init__(self, inner: ExecFactory | None, world: World, env: LiveIoEnv) -> None:
        self._inner = inner
        self._world = world
        self._env = env

    async def call(self, call: IoCall) -> TransportReply:
        request_id = artifact_id_for_bytes(request_bytes(call))
        key = str(call.fact_key or default_key(call.namespace, self._env, request_id))
        step = Step("call", target=key)
        self._world.watcher.before(step)
        self._world.note(self._world.place.calls, key)
        self._world.watcher.within(step)
        if self._inner is None:
            reply = await self._world.answer(call, self._env)
        else:
            reply = await self._inner.make(self._env).call(call)
        self._world.watcher.after(step)
        return reply


def _program(place: Place, name: str, *argv: str, stdin: Json = None) -> Json:
    return {
        "kind": "run_program_v1",
        "program_path": str(place.programs / name),
        "argv": list(argv),
        "stdin_json": stdin,
    }


def mixed_config(*, wave: bool) -> RunConfig:
    """Retries with a backoff that is told from other sleeps by its length."""
    delay = Duration.from_millis(round(BACKOFF_S * 1000))
    plain = config(max_attempts=FLAKES + 2, backoff=BackoffPolicy(Fixed=Fixed(delay=delay)))
    if not wave:
        return plain
    return plain.model_copy(update={"execution_mode": ExecutionMode.fan_out_join(WIDTH)})


def mixed_plan(place: Place) -> ExecutionPlan:
    """Pure, reading, asking a program, large, flaky, changing the world by call and by program."""

    async def compute(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(ContextKey("keys"), len(ctx.dump()))
        await rec.emit(DomainEvent(name="computed", payload=len(ctx.dump())))

    async def look(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        first = await io.call(ask({"look": 1}))
        second = await io.call(ask({"look": 2, "again": first.response}))
        await io.record_value(FactKey("seen"), [first.response, second.response])
        ctx.write(ContextKey("now"), await io.now_millis())
        ctx.write(ContextKey("dice"), (await io.random_bytes(5)).hex())
        ctx.write(ContextKey("look"), second.response)

    async def filter_(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        request = _program(place, "filter", stdin=ctx.read(ContextKey("look")))
        ctx.write(ContextKey("filtered"), (await io.call(ask(request, namespace="read"))).response)

    async def fetch(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        found = await io.call(ask({"large": True}, key="large"))
        ctx.write(ContextKey("large"), str(found.response)[: LARGE // 2])

    async def shrink(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        large = str(ctx.read(ContextKey("large")))
        ctx.write(ContextKey("digest"), sha256(large.encode()).hexdigest()[:8])
        ctx.delete(ContextKey("large"))

    async def insist(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(ContextKey("tried"), (await io.call(ask({"flaky": True}, key="flaky"))).response)

    async def charge(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(ContextKey("charge"), (await io.call(ask({"charge": 5}))).response)

    async def press(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        request = _program(place, "press", str(place.mount / "pressed"))
        done = await io.call(ask(request, key="press", namespace="press"))
        ctx.write(ContextKey("press"), done.response)

    states: dict[str, FunctionState] = {
        "begin": state(compute),
        "look": reads(look),
        "filter": reads(filter_),
        "fetch": reads(fetch),
        "shrink": state(shrink),
        "insist": reads(insist),
        "charge": effect(charge, "charge-key"),
        "press": effect(press, "press-key"),
        "end": state(compute),
    }
    if place.wave:
        between = ("look", "filter", "fetch>shrink", "insist", "charge", "press")
        return plan_of(states, *(f"begin>{path}>end" for path in between))
    # Two arms, so that contexts are merged as well as handed on.
    return plan_of(
        states,
        "begin>look>filter>charge>press>end",
        "begin>fetch>shrink>insist>press",
    )
