"""What a parent does with driving processes: have them work, and look at what they left.

The processes themselves are `driver`'s. A look never touches the store itself: it is taken at a
copy, so that what the next process finds is what the dead one left.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from mfm_ops.app.rules import FoldRules
from mfm_ops.machine.events import EventEnvelope
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.runtime.history import RunHistory, StateStatus, fold
from mfm_ops.storage.sqlite import SqliteStore, open_sqlite_store
from mfm_ops.storage.verify import verify_store
from tests.crash.plans import RUN, Place

__all__ = [
    "Drivers",
    "End",
    "Outcome",
    "copy_of",
    "end_of",
    "look_at",
    "open_attempts",
    "recorded",
    "verify",
    "verify_all",
]

ROOT = Path(__file__).resolve().parents[2]


class Outcome(NamedTuple):
    """How a driving process ended; `status` is negative for a signal.

    `end` is "" for a completed run, else its phase or the code of the failure.
    """

    status: int
    end: str


class Drivers:
    """The server that forks drivers; each call is one process's life.

    `within` is a command that runs the server somewhere else, in another mount namespace say.
    """

    def __init__(self, programs: Path, *within: str) -> None:
        self.programs = programs
        self._server = subprocess.Popen(
            [*within, sys.executable, "-W", "error", "-m", "tests.crash.driver"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def place(self, directory: Path, world: Path | None = None, *, wave: bool = False) -> Place:
        """A fresh directory for a round."""
        directory.mkdir(parents=True)
        return Place(directory, self.programs, world or directory, wave)

    def work(
        self,
        place: Place,
        *watch: Any,
        resume: bool = False,
        command: Sequence[str] = (),
        act: Sequence[Any] = (),
    ) -> Outcome:
        """Drive the run of `place` in a process of its own; nothing of that is left after it.

        With a `command` of mfm, `end` is its exit code, and the file `out` its standard output.
        An `act` is one of a scene.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        job = {
            "directory": str(place.directory),
            "programs": str(self.programs),
            "world": str(place.world),
            "wave": place.wave,
            "watch": watch or ["kill", None],
            "resume": resume,
            "command": list(command),
            "act": list(act),
        }
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        assert answer["left"] == [], "processes outlived their driver"
        return Outcome(answer["status"], answer["end"])

    def close(self) -> None:
        """End the server, which has no other process."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        assert self._server.wait() == 0


# Looking at a store


class End(NamedTuple):
    """What a finished run amounts to, whatever happened on the way."""

    final_snapshot_id: ArtifactId | None
    facts: dict[str, str]


def copy_of(store: Path, directory: Path) -> Path:
    """The store as its dead driver left it, in a directory that is made anew."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for suffix in ("", "-wal", "-journal"):
        if (file := Path(f"{store}{suffix}")).exists():
            shutil.copy(file, directory)
    if (blobs := Path(f"{store}.d")).exists():
        shutil.copytree(blobs, directory / blobs.name)
    return directory / store.name


@contextmanager
def look_at(store: Path) -> Iterator[SqliteStore]:
    """The store, opened as the next process would."""
    opened = open_sqlite_store(store)
    try:
        yield opened
    finally:
        opened.close()


async def verify(store: SqliteStore) -> list[EventEnvelope]:
    """Check all that the store holds; the run's events. What is wrong is an exception."""
    return (await verify_all(store)).get(RUN, [])


async def verify_all(store: SqliteStore) -> dict[RunId, list[EventEnvelope]]:
    """Check all that the store holds; the events of each run. What is wrong is an exception.

    Looks for itself, and asks `mfm store verify` too: both must find nothing.
    """
    with store.audit() as audit:
        report = await verify_store(audit, FoldRules)
    assert report.findings == []
    runs: dict[RunId, list[EventEnvelope]] = {}
    for line in await store.list_runs():
        runs[line.run_id] = await store.read_range(line.run_id, 1)
        assert len(runs[line.run_id]) == line.head_seq
    artifacts = set(await store.find_artifacts("", limit=10_000))
    for artifact in artifacts:
        await store.get(artifact)
    for event in (event for events in runs.values() for event in events):
        named = set(re.findall(r'_id":"([0-9a-f]{64})"', event.model_dump_json()))
        assert named <= artifacts, "an event names what is not there"
    connection = apsw.Connection(str(store.path), flags=apsw.SQLITE_OPEN_READONLY)
    assert connection.pragma("integrity_check") == "ok"
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
    return runs


def recorded(events: list[EventEnvelope]) -> set[str]:
    """The keys of the facts that are durable."""
    return set(map(str, fold(RUN, events).facts)) if events else set()


def open_attempts(events: list[EventEnvelope]) -> int:
    """How many attempts have begun and not ended."""
    states = fold(RUN, events).states.values() if events else ()
    return sum(state.status is StateStatus.running for state in states)


def end_of(events: list[EventEnvelope], run_id: RunId = RUN) -> End:
    """The end of a run, which must be there.

    A clock's or random source's key names the attempt that asked, and an orphan is an attempt: of
    these facts those count that the completed attempt saw.
    """
    history = fold(run_id, events)
    assert all(s.status is StateStatus.completed for s in history.states.values())
    facts = {}
    for key, fact in history.facts.items():
        ambient = re.fullmatch(r"(mfm:.*\|state:(.*)\|attempt:)(\d+)(\|ord:\d+)", str(key))
        if ambient is None:
            facts[str(key)] = str(fact.payload_id)
        elif int(ambient[3]) == _completed_attempt(history, ambient[2]):
            facts[f"{ambient[1]}*{ambient[4]}"] = str(fact.payload_id)
    return End(history.result.final_snapshot_id, facts)


def _completed_attempt(history: RunHistory, state: str) -> int:
    return next(r.attempts for s, r in history.states.items() if s == state) - 1
