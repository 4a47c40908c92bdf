"""`mfm_ops.runtime.driver`: does the process that a mark names still live?"""

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from mfm_ops.machine.canonical import Json, canonical_json_bytes
from mfm_ops.runtime.driver import Liveness, is_alive, liveness, this_process


@pytest.fixture
def here() -> dict[str, Any]:
    return this_process().to_json()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its standard input is closed."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yield process
    process.communicate()


def started(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123 - one field
        return int(stat.read().rpartition(")")[2].split()[19])


def mark(here: dict[str, Any], process: subprocess.Popen[bytes]) -> dict[str, Json]:
    return {**here, "pid": process.pid, "started": started(process.pid)}


def test_each_drive_has_an_id_of_its_own() -> None:
    assert this_process().driver_id != this_process().driver_id


def test_a_mark_has_a_canonical_form(here: dict[str, Any]) -> None:
    assert canonical_json_bytes(here)


def test_this_process_is_alive(here: dict[str, Any]) -> None:
    assert here["pid"] == os.getpid()
    assert is_alive(here)


def test_a_living_process_is_alive(here: dict[str, Any], child: subprocess.Popen[bytes]) -> None:
    assert is_alive(mark(here, child))


def test_a_process_that_ended_is_dead(here: dict[str, Any], child: subprocess.Popen[bytes]) -> None:
    marked = mark(here, child)
    child.communicate()
    assert not is_alive(marked)


def test_a_zombie_is_dead(here: dict[str, Any], child: subprocess.Popen[bytes]) -> None:
    marked = mark(here, child)
    child.kill()
    # Waits until it has ended, and leaves it unreaped.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(marked)


def test_a_later_process_with_the_same_pid_is_another_one(
    here: dict[str, Any], child: subprocess.Popen[bytes]
) -> None:
    marked = mark(here, child)
    marked["started"] = started(child.pid) - 1
    assert not is_alive(marked)


def test_a_process_that_proc_hides_may_be_at_work(
    here: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(pid: int, signal: int) -> None:
        assert (pid, signal) == (2**22 + 1, 0)
        raise PermissionError

    # As `hidepid` shows somebody else's process: there is no entry, and it may not be signalled.
    monkeypatch.setattr(os, "kill", kill)
    assert liveness({**here, "pid": 2**22 + 1}) is Liveness.unknown


@pytest.mark.parametrize("pid", [0, -1, 2**70, True, None])
def test_what_is_no_process_id_is_dead(here: dict[str, Any], pid: Json) -> None:
    assert not is_alive({**here, "pid": pid, "started": 1})


def test_a_driver_of_an_earlier_boot_is_dead(here: dict[str, Any]) -> None:
    assert not is_alive({**here, "boot_id": "another"})


def test_a_driver_on_another_host_counts_as_alive(here: dict[str, Any]) -> None:
    assert is_alive({**here, "host": "another", "pid": 2**22 + 1})


def test_a_driver_in_another_pid_namespace_counts_as_alive(here: dict[str, Any]) -> None:
    assert is_alive({**here, "pid_ns": "pid:[1]", "pid": 2**22 + 1})


@pytest.mark.parametrize("payload", [None, "x", [], {}, {"pid": "1"}])
def test_a_mark_that_names_nobody_is_not_this_hosts_living_process(payload: Json) -> None:
    # A mark without a host cannot be known here, so it counts as another host's.
    assert is_alive(payload) == isinstance(payload, dict)


def test_a_mark_without_a_pid_is_dead(here: dict[str, Any]) -> None:
    assert not is_alive({**here, "pid": None})


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({}, Liveness.alive),
        ({"started": 1}, Liveness.gone),
        ({"boot_id": "another"}, Liveness.gone),
        ({"host": "another"}, Liveness.unknown),
        ({"pid_ns": "another"}, Liveness.unknown),
    ],
)
def test_only_this_host_and_namespace_can_say_whether_a_driver_lives(
    here: dict[str, Any], change: dict[str, Json], known: Liveness
) -> None:
    assert liveness({**here, **change}) is known
    assert liveness(None) is Liveness.gone
