"""A driver that is killed at any append leaves a run that ends as if nothing had happened.

The long form (`make crash`, or MFM_CRASH_ROUNDS for a number) kills at more places, and more
than once in a run.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mfm_ops.machine.engine import RunPhase
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.runtime.history import StateStatus, fold
from mfm_ops.storage.sqlite import open_sqlite_store
from tests.crash.engine_child import STATES, drive

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
SHORT_ROUNDS, LONG_ROUNDS = 10, 300
# Read here: a test sees no variables of ours.
ASKED_ROUNDS = os.environ.get("MFM_CRASH_ROUNDS")


@dataclass(frozen=True)
class End:
    """What a finished run amounts to; `appends` is an upper bound on how many it took."""

    final_snapshot_id: ArtifactId | None
    facts: dict[str, str]
    appends: int


@dataclass
class Run:
    """One run in a directory of its own, driven by processes that may die."""

    directory: Path
    run_id: RunId

    def drive(self, *death: str) -> int:
        """Start or resume in a fresh process; its exit status."""
        self.directory.mkdir(exist_ok=True)
        program = [sys.executable, "-m", "tests.crash.engine_child"]
        where = [str(self.directory / "store"), self.run_id, str(self.calls)]
        done = subprocess.run([*program, *where, *death], cwd=ROOT, check=False)
        return done.returncode

    @property
    def calls(self) -> Path:
        return self.directory / "calls"

    def counted_calls(self) -> Counter[str]:
        return Counter(self.calls.read_text(encoding="utf-8").splitlines())

    async def end(self) -> End:
        store = open_sqlite_store(self.directory / "store")
        try:
            history = fold(self.run_id, await store.read_range(self.run_id, 1))
            result = history.result
            assert result.phase is RunPhase.Completed
            assert len(history.states) == STATES
            assert all(s.status is StateStatus.completed for s in history.states.values())
            assert all(s.charged == 1 for s in history.states.values())
            facts = {str(key): str(fact.payload_id) for key, fact in history.facts.items()}
            return End(result.final_snapshot_id, facts, history.head_seq)
        finally:
            store.close()


@pytest.fixture
async def whole(tmp_path: Path) -> tuple[End, Counter[str]]:
    """A run that nobody killed."""
    run = Run(tmp_path / "whole", RunId.random())
    run.directory.mkdir()
    store = open_sqlite_store(run.directory / "store")
    await drive(store, run.run_id, run.calls)
    commits = store.commits
    store.close()
    end = await run.end()
    return End(end.final_snapshot_id, end.facts, commits), run.counted_calls()


def rounds(*, long_form: bool) -> int:
    return int(ASKED_ROUNDS or (LONG_ROUNDS if long_form else SHORT_ROUNDS))


def deaths(chance: random.Random, appends: int) -> Iterator[tuple[str, int]]:
    """Where to die: at first in different parts of a run, then anywhere."""
    parts = 5
    for part, when in itertools.product(range(parts), ("before", "after")):
        low = 1 + part * appends // parts
        yield when, chance.randint(low, max(low, (part + 1) * appends // parts))
    while True:
        yield chance.choice(("before", "after")), chance.randint(1, appends)


async def test_a_killed_run_ends_like_one_that_was_not(
    tmp_path: Path, whole: tuple[End, Counter[str]], *, long_form: bool
) -> None:
    expected, calls = whole
    chance = random.Random(7)
    places = deaths(chance, expected.appends)
    for number in range(rounds(long_form=long_form)):
        run = Run(tmp_path / f"round{number}", RunId.random())
        repeatable = 0
        for when, append in itertools.islice(places, 1 + (number % 4 == 3)):
            status = run.drive(when, str(append))
            assert status in {-signal.SIGKILL, 0}
            repeatable += status != 0 and when == "before"
        assert run.drive() == 0
        end = await run.end()
        assert (end.final_snapshot_id, end.facts) == (expected.final_snapshot_id, expected.facts)
        counted = run.counted_calls()
        assert counted.keys() == calls.keys()
        # Only a call whose fact a process was about to append can have run again.
        assert sum((counted - calls).values()) <= repeatable
