"""Whoever resolves, cancels or forks a run may be killed at any boundary too, and do it again.

The long form (`make crash`) kills at every boundary of each act, the short one at some commits.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mfm_ops.machine.events import EVENT_EFFECT_UNKNOWN, RunStatus
from mfm_ops.runtime.records import Resolution
from tests.crash.scenes import FORK
from tests.crash.turns import KILLED, Theatre, Turn, chosen
from tests.support import name_of

pytestmark = pytest.mark.anyio

SHORT_COMMITS = 1


async def died_while_sending(theatre: Theatre, directory: Path, scene: str) -> Turn:
    """A run whose driver died when its effect had been sent and not answered."""
    turn = Turn(theatre, directory / "dead", scene)
    assert turn.work("drive", dies_at="after send").status == KILLED
    await turn.look()
    return turn


async def each_kill(
    theatre: Theatre,
    directory: Path,
    earlier: Turn,
    act: Callable[[Turn, int | None], Any],
    *,
    long_form: bool,
    commits: int = SHORT_COMMITS,
) -> AsyncIterator[Turn]:
    """A turn for each boundary of `act`, in which that was killed there, and found whole."""
    untouched = Turn(theatre, directory / "untouched", earlier.scene, earlier.prepared())
    act(untouched, None)
    boundaries = untouched.boundaries
    for at in chosen(boundaries, long_form=long_form, tellings=1, commits=commits):
        turn = Turn(theatre, directory / f"at-{at}", earlier.scene, earlier.prepared())
        await turn.look()
        act(turn, at)
        await turn.look()
        yield turn
        turn.clear()


@pytest.mark.parametrize("says", list(Resolution))
async def test_a_resolution_is_whole_or_can_be_made_again(
    theatre: Theatre, tmp_path: Path, says: Resolution, *, long_form: bool
) -> None:
    parked = await died_while_sending(theatre, tmp_path, "bare")
    assert parked.work("drive") == (0, "Running")
    await parked.look()
    doubt = parked.only_doubt

    def act(turn: Turn, dies_at: int | None) -> None:
        assert turn.resolve(doubt, says, dies_at).end == ""

    async for turn in each_kill(theatre, tmp_path, parked, act, long_form=long_form):
        # Nobody can tell whether it was made; making it again says so.
        assert turn.resolve(doubt, says).end in ("", "effect_not_unknown")
        assert turn.work("drive").end == ("Failed" if says is Resolution.failed else "")
        await turn.look()
        assert turn.ledger.delivered() == {"charge": 1 + (says is Resolution.retry)}


@pytest.mark.parametrize("scene", ["bare", "parent"])
@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_a_cancellation_that_was_cut_short_is_made_again_and_ends_all_runs(
    theatre: Theatre, tmp_path: Path, scene: str, how: str, *, long_form: bool
) -> None:
    """By somebody who only asks, and has it resumed, and by one who ends it without its op."""
    dead = await died_while_sending(theatre, tmp_path, scene)
    in_doubt = sum(len(history.open_intents) for history in (await dead.look()).values())
    assert in_doubt

    def act(turn: Turn, dies_at: int | None) -> None:
        turn.work(how, dies_at=dies_at)
        if how == "cancel" and dies_at is None:
            turn.work("drive")

    def drive(turn: Turn, dies_at: int | None) -> None:
        assert turn.work("drive", dies_at=dies_at).end in ("", "Cancelled")

    async for turn in each_kill(theatre, tmp_path / "ask", dead, act, long_form=long_form):
        turn.work(how)
        if how == "cancel":
            assert turn.work("drive") == (0, "Cancelled")
        await assert_cancelled(turn, dead, in_doubt)
    if how == "cancel":
        dead.work("cancel")
        obeying = each_kill(theatre, tmp_path / "obey", dead, drive, long_form=long_form)
        async for turn in obeying:
            assert turn.work("drive") == (0, "Cancelled")
            await assert_cancelled(turn, dead, in_doubt)


async def assert_cancelled(turn: Turn, dead: Turn, in_doubt: int) -> None:
    """All is over, nothing more was sent, and what is in doubt is said to be."""
    histories = await turn.look()
    statuses = {history.status for history in histories.values()}
    assert RunStatus.Cancelled in statuses
    assert statuses <= {RunStatus.Cancelled, RunStatus.Completed}
    assert turn.ledger.deliveries == dead.ledger.deliveries
    names = [name_of(event) for events in turn.runs.values() for event in events]
    assert names.count(EVENT_EFFECT_UNKNOWN) == in_doubt
    assert turn.work("drive") == (0, "Cancelled")


@pytest.mark.parametrize(
    ("scene", "from_", "sent"),
    [
        ("bare", "bare.main.end", {"charge": 1}),
        ("keyed", "keyed.main.charge", {"charge": 2}),
        ("parent", "parent.main.gather", {"paid": 1, "stamped": 1}),
    ],
)
async def test_a_fork_that_was_cut_short_is_made_again_or_gone_on_with(
    theatre: Theatre,
    tmp_path: Path,
    scene: str,
    from_: str,
    sent: dict[str, int],
    *,
    long_form: bool,
) -> None:
    source = Turn(theatre, tmp_path / "source", scene)
    assert source.work("drive") == (0, "")
    await source.look()
    whole = Turn(theatre, tmp_path / "whole", scene, source.prepared())
    assert whole.work("fork", from_) == (0, "")
    await whole.look()

    def act(turn: Turn, dies_at: int | None) -> None:
        assert turn.work("fork", from_, dies_at=dies_at).end == ""

    async for turn in each_kill(theatre, tmp_path, source, act, long_form=long_form):
        assert turn.work("fork", from_) == (0, "")
        await turn.look()
        assert turn.ends() == whole.ends()
        assert FORK in turn.runs
        # What was kept is not sent again; what was not, once more for each kill, under its key.
        delivered = turn.ledger.delivered()
        assert all(
            sent[what] <= times <= sent[what] + turn.kills * (what == "charge")
            for what, times in delivered.items()
        )
        assert delivered.keys() == sent.keys()
        assert turn.ledger.applied() == dict.fromkeys(sent, 1)
