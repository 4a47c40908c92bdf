"""A disk that is full, read-only or broken ends a drive with a code, and loses nothing.

Once the disk is well again, `resume` completes the run. The long form has the fault begin at every
change of a run, the short one at some, the same in every run of the suite.
"""
# ruff: noqa: ASYNC240 - a test's own look at its files may block

import itertools
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.rounds import (
    ROOT,
    Drivers,
    End,
    copy_of,
    end_of,
    look_at,
    recorded,
    verify,
)
from tests.support import stored_bytes

pytestmark = pytest.mark.anyio

SHORT_FAULTS = 8
SIZE_BYTES = 4 << 20
CODES = {"full": "store_full", "read_only": "store_read_only", "io_error": "store_io_error"}


@pytest.fixture(scope="package")
async def whole(drivers: Drivers, tmp_path_factory: pytest.TempPathFactory) -> tuple[End, int]:
    """The end of a run on a good disk, and how many boundaries it had."""
    place = drivers.place(tmp_path_factory.mktemp("good") / "run")
    assert drivers.work(place) == (0, "")
    with look_at(copy_of(place.store, place.directory.with_name("copy"))) as store:
        end = end_of(await verify(store))
    return end, len(place.trace.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("fault", sorted(CODES))
async def test_a_fault_of_the_disk_ends_the_drive_with_its_code_and_resume_completes(
    drivers: Drivers,
    tmp_path: Path,
    whole: tuple[End, int],
    fault: str,
    *,
    long_form: bool,
) -> None:
    end, most = whole
    failed = 0
    numbers = random.Random(9).sample(range(1, most // 4), SHORT_FAULTS)
    for number in itertools.count(1) if long_form else sorted(numbers):
        place = drivers.place(tmp_path / f"at-{number}")
        status, code = drivers.work(place, fault, number)
        assert (status, code) in {(0, CODES[fault]), (0, "")}
        failed += code != ""
        before, known = place.called(), set[str]()
        if place.store.exists():
            with look_at(copy_of(place.store, tmp_path / "copy")) as store:
                known = recorded(await verify(store))
        assert drivers.work(place, resume=True) == (0, "")
        with look_at(place.store) as store:
            assert end_of(await verify(store)) == end
        after = place.called()
        assert {key: after[key] for key in known} == {key: before[key] for key in known}
        assert list(Path(f"{place.store}.d/tmp").glob("*")) == []
        if not code:
            # The fault came while the store was closed, when all was safe already.
            break
    assert failed


async def test_a_store_that_became_read_only_is_left_alone_until_it_is_not(
    drivers: Drivers, programs: Path, tmp_path: Path, whole: tuple[End, int]
) -> None:
    world = tmp_path / "world"
    world.mkdir()
    place = drivers.place(tmp_path / "run", world)
    status, _ = drivers.work(place, "kill", whole[1] // 2)
    assert status == -signal.SIGKILL
    before = stored_bytes(place.directory)
    mount = ("--ro-bind", str(place.directory), str(place.directory))
    elsewhere = Drivers(programs, "bwrap", "--dev-bind", "/", "/", *mount, "--die-with-parent")
    assert elsewhere.work(place, resume=True) == (0, "store_read_only")
    elsewhere.close()
    assert stored_bytes(place.directory) == before
    assert drivers.work(place, resume=True) == (0, "")
    with look_at(place.store) as store:
        assert end_of(await verify(store)) == whole[0]


@pytest.mark.parametrize("free_kib", [48, 160, 480])
def test_a_real_full_disk_ends_the_drive_and_room_lets_it_complete(
    programs: Path, tmp_path: Path, whole: tuple[End, int], free_kib: int
) -> None:
    disk, world = tmp_path / "disk", tmp_path / "world"
    disk.mkdir()
    world.mkdir()
    # A file system of its own, in a mount namespace of its own: nothing of it is left.
    command = ["bwrap", "--dev-bind", "/", "/", "--size", str(SIZE_BYTES), "--tmpfs", str(disk)]
    script = [sys.executable, "-m", "tests.crash.full_disk", str(disk), str(world), str(programs)]
    done = subprocess.run(
        [*command, "--die-with-parent", *script, str(free_kib)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, readable, second, final, facts = json.loads(done.stdout)
    assert (first, second) == ("store_full", "")
    # With less there was no room for the tables.
    assert readable or free_kib < 100
    assert End(final, facts) == whole[0]
