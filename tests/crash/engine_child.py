"""The process that `test_engine_kill` kills: it drives one run, and may die at a chosen append.

    python -m tests.crash.engine_child STORE RUN_ID CALLS [before|after APPEND]

Starts the run, or resumes it when it is there. Each call of the scripted transport adds a line to
CALLS. At append number APPEND of this process it kills itself, before or after the store has it.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.engine import RunResult
from mfm_ops.machine.events import DomainEvent, EventEnvelope
from mfm_ops.machine.ids import ContextKey, FactKey, RunId
from mfm_ops.machine.io import IoCall, IoProvider
from mfm_ops.machine.plan import ExecutionPlan
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.machine.transport import LiveIoEnv
from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store
from tests.support import Bench, FunctionState, ScriptedFactory, ask, effect, plan_of, reads, state

STATES = 30


def made(number: int) -> FunctionState:
    """The state of that number: pure, reading or changing the world, in turn."""
    key = ContextKey(f"k{number}")

    async def compute(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        ctx.write(key, len(ctx.dump()))
        await rec.emit(DomainEvent(name="computed", payload=number))

    async def look(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        first = await io.call(ask({"look": number}))
        second = await io.call(ask({"look": number, "again": first.response}))
        await io.record_value(FactKey(f"seen:{number}"), [first.response, second.response])
        ctx.write(key, second.response)

    async def change(ctx: DynContext, io: IoProvider, rec: EventRecorder) -> None:
        answer = await io.call(ask({"change": number}))
        ctx.write(key, answer.response)

    match number % 3:
        case 0:
            return state(compute)
        case 1:
            return reads(look)
        case _:
            return effect(change, f"change-{number}")


def plan() -> ExecutionPlan:
    """A chain of diamonds: contexts are handed on, and merged."""
    names = [f"s{number}" for number in range(STATES)]
    arrows = []
    for start in range(0, STATES - 3, 3):
        one, left, right, join = names[start : start + 4]
        arrows += [f"{one}>{left}>{join}", f"{one}>{right}>{join}"]
    arrows.append(">".join(names[STATES - 3 :]))
    return plan_of({name: made(number) for number, name in enumerate(names)}, *arrows)


class MortalStore(SqliteStore):
    """A store whose process dies at one of its appends."""

    appends = 0
    dies_at = 0
    dies_before = False

    async def append(
        self, run_id: RunId, expected_seq: int, events: Sequence[EventEnvelope]
    ) -> int:
        self.appends += 1
        if self.appends == self.dies_at and self.dies_before:
            os.kill(os.getpid(), signal.SIGKILL)
        head = await super().append(run_id, expected_seq, events)
        if self.appends == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return head


async def drive(store: SqliteStore, run_id: RunId, calls: Path) -> RunResult:
    """Bring the run to its end."""

    async def answer(call: IoCall, env: LiveIoEnv) -> Json:
        with calls.open("ab", buffering=0) as lines:
            lines.write(f"{call.request}\n".encode())
        return len(str(call.request))

    bench = Bench(store, ScriptedFactory(answer))
    bench.plan = plan()
    if await store.head_seq(run_id):
        return await bench.resume(run_id)
    return await bench.start(bench.plan, run_id=run_id)


def main(arguments: list[str]) -> None:
    path, run_id, calls, *death = arguments
    opened = open_sqlite_store(path)
    opened.__class__ = MortalStore
    assert isinstance(opened, MortalStore)
    if death:
        opened.dies_before, opened.dies_at = death[0] == "before", int(death[1])
    try:
        anyio.run(drive, opened, RunId(run_id), Path(calls))
    finally:
        opened.close()


if __name__ == "__main__":
    main(sys.argv[1:])
