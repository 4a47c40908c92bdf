"""How often an effect reaches the far side, by its own count, when drivers die at any boundary.

The long form (`make crash`) kills at every boundary; the short one around each delivery, and at
some commits.
"""

import random
from pathlib import Path
from typing import NamedTuple

import pytest

from mfm_ops.machine.ids import RunId
from mfm_ops.runtime.records import Resolution
from tests.crash.rounds import End
from tests.crash.scenes import FAILURES
from tests.crash.turns import KILLED, Theatre, Turn, chosen

pytestmark = pytest.mark.anyio

SCENES = ("bare", "keyed", "pair", "both", "wave", "flaky", "parent")
SHORT_COMMITS = 0
SHORT_DOOMED = 4
# All steps of one delivery, and some of the others.
SHORT_TELLINGS = {"bare": 4}
SHORT_AGAIN, LONG_AGAIN = 1, 40


class Whole(NamedTuple):
    """A run of a scene that nobody killed."""

    scene: str
    boundaries: list[str]
    ends: dict[RunId, End]


@pytest.fixture(scope="package", params=SCENES)
async def whole(
    theatre: Theatre, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Whole:
    return await untouched(theatre, tmp_path_factory.mktemp("whole"), request.param)


@pytest.fixture(scope="package")
async def bare(theatre: Theatre, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return await untouched(theatre, tmp_path_factory.mktemp("bare"), "bare")


async def untouched(theatre: Theatre, directory: Path, scene: str) -> Whole:
    turn = Turn(theatre, directory / "run", scene)
    assert turn.work("drive") == (0, "")
    await turn.look()
    promised(turn)
    return Whole(scene, turn.boundaries, turn.ends())


def promised(turn: Turn) -> None:
    turn.assert_delivered_as_promised(failures=FAILURES if turn.scene == "flaky" else 0)


async def test_an_effect_is_delivered_no_more_often_than_promised(
    theatre: Theatre, tmp_path: Path, whole: Whole, *, long_form: bool
) -> None:
    some = SHORT_TELLINGS.get(whole.scene, 3)
    for boundary in chosen(
        whole.boundaries, long_form=long_form, tellings=some, commits=SHORT_COMMITS
    ):
        turn = Turn(theatre, tmp_path / f"at-{boundary}", whole.scene)
        turn.work("drive", dies_at=boundary)
        await turn.look()
        assert await turn.finish() == ""
        assert turn.ends() == whole.ends
        promised(turn)
        turn.clear()


async def test_nor_when_those_who_go_on_are_killed_too(
    theatre: Theatre, tmp_path: Path, whole: Whole, *, long_form: bool
) -> None:
    chance = random.Random(13)
    for number in range(LONG_AGAIN if long_form else SHORT_AGAIN):
        turn = Turn(theatre, tmp_path / f"again-{number}", whole.scene)
        while turn.kills < 4:
            boundary = chance.randint(1, len(whole.boundaries))
            if turn.work("drive", dies_at=boundary).status == 0:
                break
            await turn.look()
        assert await turn.finish() == ""
        assert turn.ends() == whole.ends
        promised(turn)
        turn.clear()


@pytest.mark.parametrize("says", [Resolution.retry, Resolution.failed])
async def test_somebody_who_says_retry_gets_one_more_and_who_says_failed_none(
    theatre: Theatre, tmp_path: Path, bare: Whole, says: Resolution
) -> None:
    turn = Turn(theatre, tmp_path / "sent", "bare")
    assert turn.work("drive", dies_at="after send").status == KILLED
    await turn.look()
    end = await turn.finish(says)
    again = says is Resolution.retry
    assert end == ("" if again else "Failed")
    assert turn.ledger.delivered() == {"charge": 1 + again}
    assert not again or turn.ends() == bare.ends


async def test_nothing_goes_on_from_an_effect_that_waits_for_somebody(
    theatre: Theatre, tmp_path: Path
) -> None:
    turn = Turn(theatre, tmp_path / "parked", "bare")
    assert turn.work("drive", dies_at="within send").status == KILLED
    for _ in range(3):
        assert turn.work("drive") == (0, "Running")
        (history,) = (await turn.look()).values()
        done = {str(state) for state, r in history.states.items() if r.status == "completed"}
        assert done == {"bare.main.begin"}
        assert turn.only_doubt.what == "charge"
    # It was cut off before all of it was sent: nobody has seen it.
    assert not turn.ledger.deliveries


async def test_children_send_nothing_more_once_their_parent_has_failed(
    theatre: Theatre, tmp_path: Path, *, long_form: bool
) -> None:
    whole = Turn(theatre, tmp_path / "whole", "doomed")
    assert whole.work("drive").end == "Failed"
    boundaries, tried = whole.boundaries, 0
    for boundary in chosen(boundaries, long_form=long_form, tellings=0, commits=SHORT_DOOMED):
        turn = Turn(theatre, tmp_path / f"at-{boundary}", "doomed")
        turn.work("drive", dies_at=boundary)
        histories = await turn.look()
        failed = any("doomed.main.fail" in h.states and h.failure for h in histories.values())
        before = list(turn.ledger.deliveries)
        assert await turn.finish() == "Failed"
        histories = await turn.look()
        assert all(history.status is not None for history in histories.values())
        if failed:
            tried += 1
            assert turn.ledger.deliveries == before
        assert max(turn.ledger.applied().values(), default=0) <= 1
        turn.clear()
    assert tried or not long_form
