"""A store that was cut off or changed on the disk is an earlier state, or says what is wrong.

Every event, every artifact and the log of a run that died in its middle are damaged in turn.
"""
# ruff: noqa: ASYNC240 - a test's own look at its files may block

import random
import shutil
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest

from mfm_ops.machine.errors import StorageFailure
from mfm_ops.machine.ids import ArtifactId
from tests.crash.plans import RUN, Place
from tests.crash.rounds import Drivers, End, copy_of, end_of, look_at, verify
from tests.integration.sqlite_stores import change

pytestmark = pytest.mark.anyio

LOG_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
ODD_BYTES = (-1, 1, 13, 2000)


class Victim(NamedTuple):
    """A run that died before its last state; `store` is a safe copy, `end` that of a whole run."""

    place: Place
    store: Path
    bodies: list[bytes]
    end: End
    calls: str

    def restore(self) -> Path:
        """Put the store back as its driver left it."""
        for left in self.place.directory.iterdir():
            if left.name.startswith(self.store.name):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        for file in self.store.parent.iterdir():
            if file.is_dir():
                shutil.copytree(file, self.place.directory / file.name)
            else:
                shutil.copy(file, self.place.directory)
        self.place.calls.write_text(self.calls, encoding="utf-8")
        return self.place.store


@pytest.fixture(scope="package")
async def victim(drivers: Drivers, tmp_path_factory: pytest.TempPathFactory) -> Victim:
    base = tmp_path_factory.mktemp("victim")
    whole = drivers.place(base / "whole")
    assert drivers.work(whole) == (0, "")
    with look_at(whole.store) as store:
        end = end_of(await verify(store))
    trace = whole.trace.read_text(encoding="utf-8").splitlines()
    # All states but the last are done, and the log was never emptied into the file.
    dies_at = max(at for at, name in enumerate(trace, 1) if name == "after append") - 40
    place = drivers.place(base / "run")
    while drivers.work(place, "kill", dies_at).status == 0:
        # This run had fewer commits than the other.
        dies_at -= 40
        place = drivers.place(base / f"run-{dies_at}")
    safe = copy_of(place.store, base / "safe")
    with look_at(copy_of(safe, base / "look")) as store:
        await verify(store)
        bodies = await store.read_raw(RUN, 1)
    return Victim(place, safe, bodies, end, place.calls.read_text(encoding="utf-8"))


def cuts(log: bytes, page_bytes: int, *, long_form: bool) -> list[int]:
    """Every frame's end, and odd lengths around some or all of them."""
    frame = FRAME_HEADER_BYTES + page_bytes
    ends = list(range(LOG_HEADER_BYTES, len(log) + 1, frame))
    around = ends if long_form else ends[:: max(1, len(ends) // 12)]
    odd = [end + by for end in around for by in ODD_BYTES]
    return sorted({0, 1, 31, *ends, *(length for length in odd if 0 <= length <= len(log))})


async def test_a_log_cut_off_anywhere_is_an_earlier_state_that_goes_on(
    victim: Victim, drivers: Drivers, *, long_form: bool
) -> None:
    whole_log = Path(f"{victim.store}-wal").read_bytes()
    page_bytes = int.from_bytes(whole_log[8:12], "big")
    heads = []
    resumed: set[int] = set()
    for length in cuts(whole_log, page_bytes, long_form=long_form):
        store_path = victim.restore()
        Path(f"{store_path}-wal").write_bytes(whole_log[:length])
        with look_at(store_path) as store:
            await verify(store)
            bodies = await store.read_raw(RUN, 1)
        assert bodies == victim.bodies[: len(bodies)]
        heads.append(len(bodies))
        if len(bodies) in resumed or not (long_form or len(resumed) < 6):
            continue
        resumed.add(len(bodies))
        victim.restore()
        Path(f"{store_path}-wal").write_bytes(whole_log[:length])
        assert drivers.work(victim.place, resume=True) == (0, "")
        with look_at(store_path) as store:
            assert end_of(await verify(store)) == victim.end
    assert heads == sorted(heads)
    assert heads[-1] == len(victim.bodies)


async def test_a_flipped_byte_in_any_event_is_named_and_the_run_refuses_to_go_on(
    victim: Victim, drivers: Drivers, *, long_form: bool
) -> None:
    chance = random.Random(4)
    for seq, body in enumerate(victim.bodies, 1):
        at = chance.randrange(len(body))
        # A quote would end the statement's own text; any other byte will do.
        flipped = bytes([body[at] ^ 1]) if body[at] ^ 1 != ord("'") else b"~"
        damaged = (body[:at] + flipped + body[at + 1 :]).decode("ascii", "replace")
        store_path = victim.restore()
        change(store_path, f"UPDATE events SET body = '{damaged}' WHERE seq = {seq}")
        with look_at(store_path) as store, pytest.raises(StorageFailure) as failure:
            await store.read_range(RUN, 1)
        assert failure.value.info.code == "event_corrupt"
        assert failure.value.info.details == {
            "run_id": RUN,
            "seq": seq,
            "reason": "running_hash",
        }
        if long_form or seq % 8 == 0:
            before = victim.place.called()
            assert drivers.work(victim.place, resume=True) == (0, "event_corrupt")
            assert victim.place.called() == before


async def test_a_flipped_byte_in_any_artifact_is_named_and_never_used(
    victim: Victim, drivers: Drivers
) -> None:
    chance = random.Random(5)
    with look_at(victim.restore()) as store:
        artifacts = await store.find_artifacts("", limit=1000)
    assert len(artifacts) > 20
    ends = set()
    for artifact in artifacts:
        store_path = victim.restore()
        flip(store_path, artifact, chance)
        with look_at(store_path) as store, pytest.raises(StorageFailure) as failure:
            await store.get(artifact)
        assert failure.value.info.code == "artifact_corrupt"
        assert failure.value.info.details == {"artifact_id": artifact}
        status, end = drivers.work(victim.place, resume=True)
        assert status == 0
        ends.add(end)
        # What is not needed any more is not looked at; what is needed is not used.
        assert end in {"", "artifact_corrupt"}
        if end == "":
            with look_at(store_path) as store:
                assert end_of(await store.read_range(RUN, 1)) == victim.end
    assert ends == {"", "artifact_corrupt"}


def flip(store: Path, artifact: ArtifactId, chance: random.Random) -> None:
    """Change one bit of an artifact, in its row or its file."""
    file = Path(f"{store}.d") / artifact[:2] / artifact
    if file.exists():
        data = bytearray(file.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
        return
    connection = apsw.Connection(str(store))
    row = connection.execute("SELECT body FROM artifacts WHERE id = ?", (bytes.fromhex(artifact),))
    data = bytearray(row.get)
    connection.close()
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    change(store, f"UPDATE artifacts SET body = x'{data.hex()}' WHERE id = x'{artifact}'")


async def test_a_flipped_byte_anywhere_in_the_log_is_an_earlier_state_or_named(
    victim: Victim, *, long_form: bool
) -> None:
    whole_log = Path(f"{victim.store}-wal").read_bytes()
    chance = random.Random(6)
    earlier = 0
    for _ in range(2000 if long_form else 60):
        log = bytearray(whole_log)
        log[chance.randrange(len(log))] ^= 1 << chance.randrange(8)
        store_path = victim.restore()
        Path(f"{store_path}-wal").write_bytes(log)
        with look_at(store_path) as store:
            await verify(store)
            bodies = await store.read_raw(RUN, 1)
        # SQLite checks each frame of its log, and ends it at the first that is wrong.
        assert bodies == victim.bodies[: len(bodies)]
        earlier += len(bodies) < len(victim.bodies)
    assert earlier
