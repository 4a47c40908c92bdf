"""One run of a scene: driven, killed, looked at, resolved by what the server says, gone on with."""

import random
import shutil
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from mfm_ops.machine.canonical import parse_canonical
from mfm_ops.machine.events import EVENT_IO_INTENT, EventEnvelope
from mfm_ops.machine.ids import ArtifactId, RunId
from mfm_ops.runtime.history import RunHistory, fold
from mfm_ops.runtime.records import Resolution
from mfm_ops.storage.sqlite import SqliteStore
from tests.crash.counting_server import CountingServer, Ledger
from tests.crash.plans import Place
from tests.crash.rounds import Drivers, End, Outcome, copy_of, end_of, look_at, verify_all
from tests.crash.scenes import EFFECTS
from tests.support import name_of

__all__ = ["KILLED", "Prepared", "Theatre", "Turn", "chosen"]

KILLED = -signal.SIGKILL
TELLING = ("connect", "send", "receive")
COMMITS = ("append", "commit")


class Theatre(NamedTuple):
    """What all rounds share."""

    drivers: Drivers
    server: CountingServer


class Prepared(NamedTuple):
    """A store as somebody left it, and what the server had got by then."""

    store: Path
    ledger: Ledger


class InDoubt(NamedTuple):
    """An effect that waits for somebody, and what it asked of the server."""

    run_id: RunId
    state_id: str
    key: str
    what: str


class Turn:
    """A round in a directory of its own, from nothing or from what was prepared."""

    def __init__(
        self, theatre: Theatre, directory: Path, scene: str, earlier: Prepared | None = None
    ) -> None:
        self.scene = scene
        self.place: Place = theatre.drivers.place(directory)
        self._theatre = theatre
        self.ledger = theatre.server.begin(
            str(self.place.world), earlier.ledger if earlier else None
        )
        self.kills = 0
        self.retried: Counter[str] = Counter()
        self.runs: Mapping[RunId, list[EventEnvelope]] = {}
        self._in_doubt: list[InDoubt] = []
        if earlier is not None:
            copy_of(earlier.store, self.place.directory)

    @property
    def boundaries(self) -> list[str]:
        """All that were passed by now."""
        return self.place.trace.read_text(encoding="utf-8").splitlines()

    def work(self, *act: Any, dies_at: int | str | None = None) -> Outcome:
        """Do an act of the scene; it may die at a boundary."""
        server = self._theatre.server
        outcome = self._theatre.drivers.work(
            self.place, "kill", dies_at, act=[server.port, self.scene, *act]
        )
        server.settle()
        self.kills += outcome.status == KILLED
        assert outcome.status in (0, KILLED)
        return outcome

    def prepared(self) -> Prepared:
        """What others may go on from."""
        return Prepared(self.place.store, self.ledger)

    async def look(self) -> Mapping[RunId, RunHistory]:
        """Check all that must hold at any moment; how each run stands."""
        self.runs, self._in_doubt = {}, []
        if not self.place.store.exists():
            assert not self.ledger.deliveries
            return {}
        with look_at(copy_of(self.place.store, self._copy)) as store:
            self.runs = await verify_all(store)
            histories = {run: fold(run, events) for run, events in self.runs.items() if events}
            announced: Counter[str] = Counter()
            for events in self.runs.values():
                for event in events:
                    if name_of(event) == EVENT_IO_INTENT:
                        announced[await _sent(store, cast(Any, event.event.Domain.payload))] += 1
            delivered = self.ledger.delivered()
            assert delivered.keys() <= EFFECTS[self.scene].keys()
            assert all(times <= announced[what] for what, times in delivered.items())
            for run, history in histories.items():
                for fact in history.facts.values():
                    meta = cast(dict[str, Any], fact.meta)
                    if meta.get("transport") == "till":
                        what = await _sent(store, meta)
                        assert delivered[what] >= 1, "an answer without a delivery"
                for state in history.states:
                    for intent in history.in_doubt(state):
                        what = await _sent(store, {"request_id": str(intent.request_id)})
                        self._in_doubt.append(InDoubt(run, state, str(intent.key), what))
        return histories

    async def finish(self, says: Resolution | None = None) -> str:
        """Go on until the run is over, resolving what it waits for; how the run ended.

        Without `says` an effect is resolved by what the server got.
        """
        end = self.work("drive").end
        while end == "Running":
            await self.look()
            assert self._in_doubt, "a run is parked and waits for nothing"
            for effect in self._in_doubt:
                got = self.ledger.delivered()[effect.what]
                resolution = says or (Resolution.completed if got else Resolution.retry)
                self.retried[effect.what] += resolution is Resolution.retry and got > 0
                assert self.resolve(effect, resolution).end == ""
            end = self.work("drive").end
        await self.look()
        return end

    def resolve(
        self, effect: InDoubt, as_: Resolution, dies_at: int | str | None = None
    ) -> Outcome:
        """Say what became of an effect."""
        return self.work(
            "resolve", effect.run_id, effect.state_id, as_, effect.key, effect.what, dies_at=dies_at
        )

    @property
    def only_doubt(self) -> InDoubt:
        """The one effect that the run waits for, as it was seen at the last look."""
        (only,) = self._in_doubt
        return only

    def ends(self) -> dict[RunId, End]:
        """The ends of all runs as they were seen at the last look, which must be there."""
        return {run: end_of(events, run) for run, events in self.runs.items()}

    def assert_delivered_as_promised(self, *, failures: int = 0) -> None:
        """Without a key once, with one once for each kill, and carried out once.

        `failures` is how often the server says that it failed.
        """
        delivered, applied = self.ledger.delivered(), self.ledger.applied()
        for what, key in EFFECTS[self.scene].items():
            if key is None:
                assert delivered[what] == 1 + self.retried[what]
            else:
                assert 1 + failures <= delivered[what] <= 1 + failures + self.kills
                assert applied[what] == 1
            assert {d.key for d in self.ledger.deliveries if d.what == what} == {key}

    def clear(self) -> None:
        shutil.rmtree(self.place.directory)
        shutil.rmtree(self._copy, ignore_errors=True)

    @property
    def _copy(self) -> Path:
        return self.place.directory.with_name(f"{self.place.directory.name}-copy")


async def _sent(store: SqliteStore, names: Mapping[str, Any]) -> str:
    request = parse_canonical(await store.get(ArtifactId(names["request_id"])))
    return str(cast(Any, request)["request"]["what"])


def chosen(boundaries: Sequence[str], *, long_form: bool, tellings: int, commits: int) -> list[int]:
    """The boundaries to die at: all, or some around deliveries, the first commit and some more."""
    if long_form:
        return list(range(1, len(boundaries) + 1))
    numbered = [(number, name.split()[1]) for number, name in enumerate(boundaries, 1)]
    telling = [number for number, kind in numbered if kind in TELLING]
    first, *later = [number for number, kind in numbered if kind in COMMITS]
    chance = random.Random(3)
    return sorted(
        {
            first,
            *chance.sample(telling, min(tellings, len(telling))),
            *chance.sample(later, min(commits, len(later))),
        }
    )
