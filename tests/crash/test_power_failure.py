"""What a power failure leaves, after any step of a run, is a state that the run goes on from.

One run's steps are recorded, and the disks that could be left after each are built from them. The
long form looks at all steps, the short one at some, the same in every run of the suite.
"""
# ruff: noqa: ASYNC240 - a test's own look at its files may block

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.events import EVENT_IO_INTENT
from tests.crash.door import Step
from tests.crash.plans import RUN, Place
from tests.crash.power import Disk, Survives, every_second, everything, nothing, read_log
from tests.crash.rounds import Drivers, End, end_of, look_at, recorded, verify
from tests.support import name_of

pytestmark = pytest.mark.anyio

SHORT_STEPS, SHORT_RESUMES = 25, 6
SHORT_LIES, LONG_LIES = 50, 1500
EFFECTS = {"press"}
# What a store may be found to be after a disk lied; nothing else, and never a wrong answer.
HONEST = {
    "artifact_corrupt",
    "artifact_not_found",
    "event_corrupt",
    "history_invalid",
    "store_corrupt",
    "store_not_mfm",
    "store_io_error",
    "unsupported_format",
}


class Recorded(NamedTuple):
    """A whole run: where it was, its steps, the bytes of its events, and its end."""

    place: Place
    steps: list[Step]
    bodies: list[bytes]
    end: End


class Promises(NamedTuple):
    """What was said to be durable: the head, artifacts, and effects that were about to happen."""

    head: int = 0
    artifacts: frozenset[str] = frozenset()
    effects: frozenset[str] = frozenset()

    def after(self, step: Step) -> "Promises":
        match step.kind:
            case "append":
                return self._replace(head=step.offset)
            case "put":
                return self._replace(artifacts=self.artifacts | {step.target})
            case "call" if step.target in EFFECTS or "charge" in step.target:
                return self._replace(effects=self.effects | {step.target})
        return self


@pytest.fixture(scope="package", params=["chain", "wave"])
async def run(
    drivers: Drivers, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Recorded:
    wave = request.param == "wave"
    place = drivers.place(tmp_path_factory.mktemp("recorded") / "run", wave=wave)
    assert drivers.work(place, "log") == (0, "")
    steps = read_log(place.log)
    with look_at(place.store) as store:
        end = end_of(await verify(store))
        return Recorded(place, steps, await store.read_raw(RUN, 1), end)


def disks(run: Recorded, numbers: set[int]) -> Iterator[tuple[int, Disk, Promises]]:
    """The disk after each of the steps with these numbers."""
    disk, promises = Disk(run.place.directory), Promises()
    for number, step in enumerate(run.steps, 1):
        disk.take(step)
        promises = promises.after(step)
        if number in numbers:
            yield number, disk, promises


def numbers_of(steps: int, wanted: int | None) -> set[int]:
    """All of them, or so many."""
    if wanted is None:
        return set(range(1, steps + 1))
    return set(random.Random(3).sample(range(1, steps + 1), wanted))


def left_overs(chance: random.Random) -> Iterator[tuple[Survives, Survives]]:
    """What may have happened to bytes and names that no sync had made safe."""
    yield nothing, nothing
    yield everything, everything
    yield nothing, everything
    yield everything, nothing
    yield every_second(chance), every_second(chance)


def remember(place: Place, steps: list[Step]) -> Counter[str]:
    """The world has not forgotten what it was asked before the power failed."""
    asked = [step.target for step in steps if step.kind == "call"]
    place.calls.write_text("".join(f"{key}\n" for key in asked), encoding="utf-8")
    return Counter(asked)


async def prefix_of(run: Recorded, store_path: Path, promises: Promises) -> set[str]:
    """Check that all promises were kept; the keys of the facts that are there."""
    if not store_path.exists():
        assert promises == Promises()
        return set()
    with look_at(store_path) as store:
        events = await verify(store)
        bodies = await store.read_raw(RUN, 1)
        assert bodies == run.bodies[: len(bodies)]
        assert len(bodies) >= promises.head
        for artifact in promises.artifacts:
            assert artifact in await store.find_artifacts(artifact)
    announced = {
        str(e.event.Domain.payload["key"])
        for e in events
        if name_of(e) == EVENT_IO_INTENT and isinstance(e.event.Domain.payload, dict)
    }
    assert promises.effects <= announced
    return recorded(events)


async def test_what_was_synced_is_there_and_what_was_not_does_no_harm(
    run: Recorded, tmp_path: Path, *, long_form: bool
) -> None:
    chance = random.Random(5)
    store = tmp_path / "image" / run.place.store.name
    wanted = numbers_of(len(run.steps), None if long_form else SHORT_STEPS)
    for _, disk, promises in disks(run, wanted):
        for content, names in left_overs(chance):
            disk.image(store.parent, content=content, names=names)
            await prefix_of(run, store, promises)


async def test_a_run_goes_on_from_what_a_power_failure_left(
    run: Recorded, drivers: Drivers, *, long_form: bool
) -> None:
    chance = random.Random(6)
    wanted = numbers_of(len(run.steps), None if long_form else SHORT_RESUMES)
    for number, disk, promises in disks(run, wanted):
        # In the same place: a request names files in it.
        place, survives = run.place, every_second(chance)
        disk.image(place.directory, content=survives, names=survives)
        known = await prefix_of(run, place.store, promises)
        before = remember(place, run.steps[:number])
        assert drivers.work(place, resume=True) == (0, "")
        with look_at(place.store) as store:
            assert end_of(await verify(store)) == run.end
        after = place.called()
        assert {key: after[key] for key in known} == {key: before[key] for key in known}


async def test_a_disk_that_lied_is_found_out_or_left_an_earlier_state(
    run: Recorded, drivers: Drivers, *, long_form: bool
) -> None:
    chance = random.Random(8)
    found = {"whole": 0}
    for round_ in range(LONG_LIES if long_form else SHORT_LIES):
        disk = Disk(run.place.directory)
        lies_from = chance.randrange(len(run.steps))
        # Every second one after all is done, where the log is gone and the file is all there is.
        fails_at = chance.choice((chance.randint(lies_from, len(run.steps)), len(run.steps)))
        for number, step in enumerate(run.steps[:fails_at]):
            disk.lies = number >= lies_from
            disk.take(step)
        survives = every_second(chance, chance.choice((0.2, 0.5, 0.9, 0.99)))
        place = run.place
        disk.image(place.directory, content=survives, names=everything)
        if not place.store.exists():
            continue
        code = await first_finding(run, place.store)
        assert code == "whole" or code in HONEST
        found[code] = found.get(code, 0) + 1
        if round_ % 10 == 0:
            remember(place, run.steps[:fails_at])
            status, end = drivers.work(place, resume=True)
            assert status == 0
            assert end == "" or end in HONEST
            if end == "":
                with look_at(place.store) as store:
                    assert end_of(await store.read_range(RUN, 1)) == run.end
    # A disk can lose its end without a trace, and it can be caught.
    assert found["whole"]
    assert len(found) > 1


async def first_finding(run: Recorded, store_path: Path) -> str:
    """The code under which the damage is found; "whole" for an earlier state without any."""
    try:
        with look_at(store_path) as store:
            events = await store.read_range(RUN, 1)
            bodies = await store.read_raw(RUN, 1)
            assert bodies == run.bodies[: len(events)]
            for artifact in await store.find_artifacts("", limit=1000):
                await store.get(artifact)
    except StorageFailure as failure:
        return str(failure.info.code)
    return "whole"
