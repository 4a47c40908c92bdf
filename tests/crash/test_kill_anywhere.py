"""A driver that is killed at any boundary leaves a run that ends as if nothing had happened.

The long form (`make crash`) kills at every boundary of a run; the short one at one of each kind
and at some more, the same in every run of the suite.
"""
# ruff: noqa: ASYNC240 - a test's own look at its files may block

import itertools
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.crash.plans import Place
from tests.crash.rounds import (
    Drivers,
    End,
    copy_of,
    end_of,
    look_at,
    open_attempts,
    recorded,
    verify,
)

pytestmark = pytest.mark.anyio

KILLED = -signal.SIGKILL
SHORT_SPREAD = 14
SHORT_DOUBLE, LONG_DOUBLE = 5, 150
SHARDS = 3


class Whole(NamedTuple):
    """A run that nobody killed: its boundaries in order, its end, its calls and its files."""

    wave: bool
    boundaries: list[str]
    end: End
    called: Counter[str]
    deliveries: dict[str, list[str]]
    files: set[str]


@pytest.fixture(scope="package", params=["chain", "wave"])
async def whole(
    drivers: Drivers, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Whole:
    wave = request.param == "wave"
    place = drivers.place(tmp_path_factory.mktemp("whole") / "run", wave=wave)
    assert drivers.work(place) == (0, "")
    with look_at(copy_of(place.store, place.directory.with_name("copy"))) as store:
        end = end_of(await verify(store))
    return Whole(
        wave,
        place.trace.read_text(encoding="utf-8").splitlines(),
        end,
        place.called(),
        place.deliveries(),
        files(place),
    )


def files(place: Place) -> set[str]:
    """The names of all files of a round, but for the lock that lies in SQLite's shared memory."""
    found = (f for f in place.directory.rglob("*") if f.is_file())
    return {str(file.relative_to(place.directory)) for file in found}


def chosen(whole: Whole, shard: int, *, long_form: bool) -> Iterable[int]:
    """The numbers of the boundaries to die at, from 1; the long form's go on past the last."""
    last = len(whole.boundaries)
    if long_form:
        return itertools.count(1 + shard, SHARDS)
    picked = {1 + at * last // SHORT_SPREAD for at in range(SHORT_SPREAD)}
    if not whole.wave:
        # A wave passes the same ones in another order.
        by_kind: dict[str, list[int]] = {}
        for number, name in enumerate(whole.boundaries, 1):
            by_kind.setdefault(name, []).append(number)
        picked |= {random.Random(7).choice(numbers) for numbers in by_kind.values()}
    return sorted(picked)[shard::SHARDS]


class Round:
    """One run that is killed and gone on with, in one directory."""

    def __init__(self, drivers: Drivers, directory: Path, whole: Whole) -> None:
        self.drivers = drivers
        self.place = drivers.place(directory, wave=whole.wave)
        self.whole = whole
        self.kills = 0
        self.resumes = False
        self.open_attempts = 0

    async def die_at(self, boundary: int) -> bool:
        """Drive until that boundary; False if the run was over before."""
        before = self.place.called()
        known = await self._recorded() if self.resumes else set()
        passed = self._passed()
        status, end = self.drivers.work(self.place, "kill", boundary, resume=self.resumes)
        self.resumes = True
        self._no_recorded_call_ran_again(known, before)
        if status == 0:
            assert end == ""
            # One run shares more commits than another, and has fewer boundaries.
            assert self._passed() - passed < boundary
            return False
        assert status == KILLED
        self.kills += 1
        return True

    async def finish(self) -> None:
        """Go on to the end in a new process, and compare with the whole run."""
        known, before = await self._recorded(), self.place.called()
        assert self.drivers.work(self.place, resume=self.resumes) == (0, "")
        self._no_recorded_call_ran_again(known, before)
        with look_at(copy_of(self.place.store, self._copy)) as store:
            assert end_of(await verify(store)) == self.whole.end
        called = self.place.called()
        assert called.keys() == self.whole.called.keys()
        # A call that was cut short is made again, once for each kill; a chain has one at a time.
        again = (called - self.whole.called).values()
        assert max(again, default=0) <= self.kills
        assert self.whole.wave or sum(again) <= self.kills
        for effect, keys in self.place.deliveries().items():
            assert set(keys) == set(self.whole.deliveries[effect])
            assert len(keys) <= len(self.whole.deliveries[effect]) + self.kills
        assert files(self.place) == self.whole.files
        shutil.rmtree(self.place.directory)
        shutil.rmtree(self._copy)

    def _passed(self) -> int:
        """How many boundaries were passed by now."""
        trace = self.place.trace
        return len(trace.read_text(encoding="utf-8").splitlines()) if trace.exists() else 0

    @property
    def _copy(self) -> Path:
        return self.place.directory.with_name(f"{self.place.directory.name}-copy")

    async def _recorded(self) -> set[str]:
        """The facts that are durable now; all that is stored is verified on the way."""
        if not self.place.store.exists():
            return set()
        with look_at(copy_of(self.place.store, self._copy)) as store:
            events = await verify(store)
            # Opening sweeps what a dead writer left behind.
            assert list(Path(f"{store.path}.d/tmp").glob("*")) == []
        self.open_attempts = max(self.open_attempts, open_attempts(events))
        return recorded(events)

    def _no_recorded_call_ran_again(self, known: set[str], before: Counter[str]) -> None:
        after = self.place.called()
        assert {key: after[key] for key in known} == {key: before[key] for key in known}


@pytest.mark.parametrize("shard", range(SHARDS))
async def test_a_driver_killed_at_any_boundary_leaves_a_run_that_ends_as_if_it_were_not(
    drivers: Drivers, tmp_path: Path, whole: Whole, shard: int, *, long_form: bool
) -> None:
    killed = asked = most_open = 0
    for boundary in chosen(whole, shard, long_form=long_form):
        turn = Round(drivers, tmp_path / f"at-{boundary}", whole)
        died = await turn.die_at(boundary)
        await turn.finish()
        killed, most_open = killed + died, max(most_open, turn.open_attempts)
        asked += boundary <= len(whole.boundaries)
        if not died and boundary > len(whole.boundaries):
            break
    # Who is not killed has not come so far; few runs are so much shorter than another.
    assert killed > asked / 2
    # Some died in the middle of a wave, and some of a single state.
    assert most_open > 1 if whole.wave else most_open == 1


async def test_no_boundary_is_left_out(drivers: Drivers, tmp_path: Path, whole: Whole) -> None:
    # One more than there are, with room for a long attempt's early opening on a slow machine.
    turn = Round(drivers, tmp_path / "untouched", whole)
    assert not await turn.die_at(2 * len(whole.boundaries))
    kinds = {name.split()[1] for name in whole.boundaries}
    assert kinds == {
        *("append", "commit", "call", "backoff", "spawn", "feed", "reap"),
        *(
            "create",
            "write",
            "truncate",
            "sync",
            "sync_directory",
            "delete",
            "rename",
            "link",
            "mkdir",
        ),
    }


async def test_a_resume_that_is_killed_too_changes_nothing(
    drivers: Drivers, tmp_path: Path, whole: Whole, *, long_form: bool
) -> None:
    chance = random.Random(11)
    for number in range(LONG_DOUBLE if long_form else SHORT_DOUBLE):
        turn = Round(drivers, tmp_path / f"twice-{number}", whole)
        await turn.die_at(chance.randint(1, len(whole.boundaries)))
        while turn.kills < 4 and await turn.die_at(chance.randint(1, len(whole.boundaries) // 2)):
            pass
        await turn.finish()
