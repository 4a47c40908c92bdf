"""`mfm run export` and `mfm run import` that are killed at any boundary can be done again.

Nothing half done has the name of an export, and what a dead one leaves the next one removes.
"""
# ruff: noqa: ASYNC240 - a test's own look at its files may block

import json
import shutil
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from mfm_ops.machine.events import EventEnvelope
from mfm_ops.machine.ids import RunId
from tests.crash.plans import Place
from tests.crash.rounds import Drivers, copy_of, look_at, verify_all
from tests.crash.turns import Theatre, Turn

pytestmark = pytest.mark.anyio

SHORT_KILLS = 5


class Exported(NamedTuple):
    """A family of runs, the file that holds it, and the runs themselves."""

    source: Turn
    file: Path
    runs: dict[RunId, list[EventEnvelope]]


@pytest.fixture(scope="module")
async def exported(theatre: Theatre, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    source = Turn(theatre, tmp_path_factory.mktemp("exported") / "run", "parent")
    assert source.work("drive") == (0, "")
    await source.look()
    file = source.place.directory / "whole.tar"
    command = ["run", "export", "last", "-o", str(file)]
    assert theatre.drivers.work(source.place, command=command) == (0, "0")
    return Exported(source, file, dict(source.runs))


def boundaries_of(drivers: Drivers, place: Place, command: list[str]) -> list[str]:
    """The boundaries that a command passes which nobody kills."""
    place.trace.unlink(missing_ok=True)
    assert drivers.work(place, command=command) == (0, "0")
    return place.trace.read_text(encoding="utf-8").splitlines()


def numbers(boundaries: list[str], *, long_form: bool) -> range:
    return range(1, len(boundaries) + 1, 1 if long_form else len(boundaries) // SHORT_KILLS)


@pytest.mark.parametrize("there", [False, True])
async def test_an_export_is_whole_or_not_there_and_the_next_one_sweeps(
    drivers: Drivers, tmp_path: Path, exported: Exported, there: bool, *, long_form: bool
) -> None:
    directory = tmp_path / "out"
    directory.mkdir()
    file = directory / "run.tar"
    command = ["run", "export", "last", "-o", str(file), *(["--force"] if there else [])]
    place = exported.source.place
    boundaries = boundaries_of(drivers, place, command)
    assert {"within write directory", "after sync directory"} <= set(boundaries)
    assert ("after rename directory" if there else "after link directory") in boundaries
    whole, earlier = exported.file.read_bytes(), b"an earlier export"
    left = 0
    for at in numbers(boundaries, long_form=long_form):
        file.unlink()
        if there:
            file.write_bytes(earlier)
        assert drivers.work(place, "kill", at, command=command).status == -signal.SIGKILL
        names = [each.name for each in directory.iterdir()]
        left += any(name.startswith(".mfm-export-") for name in names)
        if file.name in names:
            assert file.read_bytes() in ([whole, earlier] if there else [whole])
        again = command if file.name not in names or there else [*command, "--force"]
        assert drivers.work(place, command=again) == (0, "0")
        assert [each.name for each in directory.iterdir()] == ["run.tar"]
        assert file.read_bytes() == whole
    assert left
    with look_at(copy_of(place.store, tmp_path / "copy")) as store:
        assert await verify_all(store) == exported.runs


async def test_an_import_that_was_cut_short_is_completed_by_the_next(
    drivers: Drivers, tmp_path: Path, exported: Exported, *, long_form: bool
) -> None:
    command = ["run", "import", str(exported.file), "--json"]
    untouched = drivers.place(tmp_path / "untouched")
    boundaries = boundaries_of(drivers, untouched, command)
    some = set[int]()
    for at in numbers(boundaries, long_form=long_form):
        place = drivers.place(tmp_path / "killed")
        assert drivers.work(place, "kill", at, command=command).status == -signal.SIGKILL
        if place.store.exists():
            with look_at(copy_of(place.store, tmp_path / "copy")) as store:
                found = await verify_all(store)
            # A run is there as it was, or not at all.
            assert found.items() <= exported.runs.items()
            some.add(len(found))
        assert drivers.work(place, command=command) == (0, "0")
        document = json.loads((place.directory / "out").read_text(encoding="utf-8"))
        assert {run["run_id"] for run in document["data"]["runs"]} == set(exported.runs)
        with look_at(copy_of(place.store, tmp_path / "copy")) as store:
            assert await verify_all(store) == exported.runs
            assert list(Path(f"{store.path}.d/tmp").glob("*")) == []
        shutil.rmtree(place.directory)
    assert 0 in some
