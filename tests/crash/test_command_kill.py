"""`mfm op keystore_list` that is killed at any boundary is finished by the same command.

With a run key the second start is the first one's run, whether that was stored or not.
"""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from mfm_ops.runtime.history import fold
from tests.crash.plans import Place
from tests.crash.rounds import ROOT, Drivers, copy_of, look_at, verify

pytestmark = pytest.mark.anyio

KEYSTORES = ROOT / "examples" / "keystore"
SHORT_KILLS = 10


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    keystores = tmp_path / "keys"
    shutil.copytree(KEYSTORES, keystores)
    return ["--json", "op", "keystore_list", "--keystore", str(keystores), "--run-key", "nightly"]


async def what_is(place: Place) -> tuple[Any, ...]:
    """The document that the command wrote, and the one run that is stored."""
    document = json.loads((place.directory / "out").read_text(encoding="utf-8"))
    assert document["status"] == "success"
    with look_at(copy_of(place.store, place.directory.with_name("copy"))) as store:
        await verify(store)
        (line,) = await store.list_runs()
        history = fold(line.run_id, await store.read_range(line.run_id, 1))
        facts = {str(key): str(fact.payload_id) for key, fact in history.facts.items()}
    return document["data"]["outputs"], history.result, facts


async def test_the_same_command_finishes_what_a_killed_one_began(
    drivers: Drivers, tmp_path: Path, command: list[str], *, long_form: bool
) -> None:
    untouched = drivers.place(tmp_path / "untouched")
    assert drivers.work(untouched, command=command) == (0, "0")
    whole = await what_is(untouched)
    boundaries = len(untouched.trace.read_text(encoding="utf-8").splitlines())
    step = 1 if long_form else max(1, boundaries // SHORT_KILLS)
    killed = 0
    for boundary in range(1, boundaries + 1, step):
        place = drivers.place(tmp_path / "killed")
        status, _ = drivers.work(place, "kill", boundary, command=command)
        passed = len(place.trace.read_text(encoding="utf-8").splitlines())
        # On a slow machine an attempt becomes visible early, which is a commit more.
        assert passed >= boundary if status == -signal.SIGKILL else passed < boundary
        killed += status == -signal.SIGKILL
        assert drivers.work(place, command=command) == (0, "0")
        assert await what_is(place) == whole
        shutil.rmtree(place.directory)
    assert killed > boundaries / step / 2
