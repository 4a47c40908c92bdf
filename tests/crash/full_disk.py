"""Drives a run on a small file system that has hardly any room, then makes room and goes on.

    python -m tests.crash.full_disk DISK WORLD PROGRAMS FREE_KIB

Prints how both drives ended, whether the store could be read in between, and the run's end.
"""

import json
import os
import sys
from pathlib import Path

import anyio

from mfm_ops.machine.errors import StorageFailure
from tests.crash.rounds import Drivers, End, end_of, look_at, verify


def main(disk: Path, world: Path, programs: Path, free_kib: int) -> None:
    ballast = disk / "ballast"
    room = os.statvfs(disk)
    ballast.write_bytes(bytes(room.f_bavail * room.f_frsize - free_kib * 1024))
    drivers = Drivers(programs)
    place = drivers.place(disk / "run", world)
    first = drivers.work(place)
    assert first.status == 0
    try:
        with look_at(place.store) as store:
            anyio.run(verify, store)
        readable = True
    except StorageFailure:
        readable = False
    ballast.unlink()
    second = drivers.work(place, resume=True)
    assert second.status == 0
    drivers.close()

    async def look() -> End:
        with look_at(place.store) as store:
            return end_of(await verify(store))

    final, facts = anyio.run(look)
    print(json.dumps([first.end, readable, second.end, final, facts]))  # noqa: T201 - the test reads this


if __name__ == "__main__":
    disk, world, programs = map(Path, sys.argv[1:4])
    main(disk, world, programs, int(sys.argv[4]))
