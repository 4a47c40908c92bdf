"""Which links to store paths go when runs end, and which stay."""

from pathlib import Path

import pytest

from mfm_ops.app.nix_roots import release_ended, roots_beside
from mfm_ops.machine.events import RunCompleted, RunStarted, RunStatus
from mfm_ops.machine.ids import ArtifactId, OpId, RunId
from mfm_ops.storage.memory import MemoryStore
from tests.support import kernel

pytestmark = pytest.mark.anyio

STARTED = RunStarted(
    op_id=OpId("op"), manifest_id=ArtifactId("0" * 64), initial_snapshot_id=ArtifactId("0" * 64)
)


class Site:
    def __init__(self, directory: Path) -> None:
        self.store = MemoryStore()
        self.path = directory / "store.sqlite"
        self.roots = roots_beside(self.path)

    async def run(self, *links: str, over: bool) -> RunId:
        """A run with roots by these names."""
        run_id = RunId.random()
        await self.store.append(run_id, 0, [kernel(run_id, 1, STARTED)])
        if over:
            await self.end(run_id)
        (self.roots / run_id).mkdir(parents=True)
        for name in links:
            (self.roots / run_id / name).symlink_to("/nix/store/x")
        return run_id

    async def end(self, run_id: RunId) -> None:
        completed = RunCompleted(status=RunStatus.Completed)
        await self.store.append(run_id, 1, [kernel(run_id, 2, completed)])

    async def left(self) -> dict[str, list[str]]:
        await release_ended(self.store, self.path)
        return {
            directory.name: sorted(link.name for link in directory.iterdir())
            for directory in self.roots.iterdir()
        }


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_roots_go_with_the_end_of_their_run(site: Site) -> None:
    await site.run("a", "a-2", over=True)
    going_on = await site.run("a", over=False)
    assert await site.left() == {going_on: ["a"]}


async def test_roots_of_a_run_that_never_began_go(site: Site) -> None:
    (site.roots / RunId.random()).mkdir(parents=True)
    assert await site.left() == {}


async def test_what_is_no_runs_directory_is_left_alone(site: Site) -> None:
    (site.roots / "notes").mkdir(parents=True)
    assert await site.left() == {"notes": []}


async def test_a_root_that_another_run_holds_stays_until_that_one_is_over(site: Site) -> None:
    first = await site.run("a", "a-2", "b", over=True)
    second = await site.run(over=False)
    (site.roots / second / "a").symlink_to(site.roots / first / "a")
    assert await site.left() == {first: ["a", "a-2"], second: ["a"]}
    await site.end(second)
    assert await site.left() == {}


async def test_a_store_without_roots_is_no_trouble(site: Site) -> None:
    await release_ended(site.store, site.path)
    assert not site.roots.exists()
