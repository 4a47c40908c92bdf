"""`process_exec` with launchers of the tests' own: what it makes of their behaviour."""

# ASYNC110, ASYNC240: the event to wait for happens in another process, and is a file.
# ruff: noqa: ASYNC110

import asyncio
import os
import shutil
import socket
from pathlib import Path

import anyio
import pytest

from transports import tree
from transports.child import ChildResult, ChildSpec, Command
from transports.process_exec import run_child
from transports.tree import descendants, proportional_memory, socket_memory, tree_usage

pytestmark = pytest.mark.anyio

TELL = 'tell() { echo "$1" >&"$STATUS"; }; STATUS=$1; GATE=$2; '


async def launch(body: str, *, timeout_ms: int = 10_000, stdin: bytes = b"") -> ChildResult:
    """Run a launcher that is a shell script: `tell` writes a document to the status stream."""
    busybox = shutil.which("busybox")
    assert busybox is not None

    def command(status: int, gate: int) -> Command:
        argv = (busybox, "sh", "-c", TELL + body, "launcher", str(status), str(gate))
        return Command(argv, (), "init")

    deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
    return await run_child(ChildSpec(command=command, stdin=stdin, deadline=deadline))


INIT = "(read -r _ <&\"$GATE\"; %s) & tell '{\"child-pid\":'$!'}'; "


async def test_a_launcher_that_tells_an_exit_code_has_exited() -> None:
    result = await launch(INIT % "echo out; echo err >&2" + "wait; tell '{\"exit-code\":0}'")
    assert (result.ending, result.exit_code, result.signal) == ("exited", 0, None)
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")


async def test_a_code_above_128_is_a_signal_too() -> None:
    result = await launch(INIT % ":" + "wait; tell '{\"exit-code\":139}'")
    assert (result.exit_code, result.signal) == (139, 11)


async def test_a_launcher_that_ends_without_a_word_did_not_start_the_program() -> None:
    result = await launch("echo why >&2; exit 0")
    assert (result.ending, result.stderr) == ("not_started", b"why\n")


async def test_a_launcher_that_is_killed_from_outside_has_exited_by_that_signal() -> None:
    result = await launch("kill -9 $$")
    assert (result.ending, result.exit_code, result.signal) == ("exited", None, 9)


async def test_nothing_runs_before_the_gate_opens(tmp_path: Path) -> None:
    async def run() -> None:
        await launch(f"touch {tmp_path}/launched; read -r _ <&$GATE; touch {tmp_path}/ran")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        while not (tmp_path / "launched").exists():
            await anyio.sleep(0.005)
        tasks.cancel_scope.cancel()
    assert not (tmp_path / "ran").exists()


async def test_a_launcher_that_reports_nothing_is_killed_all_the_same() -> None:
    result = await launch("sleep 1000", timeout_ms=50)
    assert (result.ending, result.clean) == ("timeout", True)


async def test_a_launcher_that_does_not_follow_its_init_is_killed() -> None:
    result = await launch(INIT % "sleep 1000" + "sleep 1000", timeout_ms=50)
    assert (result.ending, result.clean) == ("timeout", True)


async def test_a_status_stream_may_come_in_pieces() -> None:
    body = INIT % ":" + "wait; printf '{\"exit-' >&$STATUS; printf 'code\": 0}\\n' >&$STATUS"
    assert (await launch(body)).exit_code == 0


async def test_cancelling_waits_for_the_end_of_the_tree() -> None:
    scope = anyio.CancelScope()

    async def run() -> None:
        with scope:
            await launch(INIT % "sleep 1000" + "wait")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
    assert descendants_of_ours() == []


async def test_a_task_cancelled_twice_still_waits_for_the_end_of_the_tree() -> None:
    task = asyncio.ensure_future(launch(INIT % "sleep 1000" + "wait"))
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert descendants_of_ours() == []


async def test_a_launcher_that_is_not_there_is_an_os_error() -> None:
    spec = ChildSpec(
        command=lambda s, g: Command(("/nonexistent",), (), "init"), stdin=b"", deadline=0
    )
    with pytest.raises(FileNotFoundError):
        await run_child(spec)


async def test_the_usage_of_a_tree_counts_what_is_below_the_root() -> None:
    usage = tree_usage(1)
    assert usage.tasks >= len(usage.pids) > 0
    assert usage.memory_bytes > 0
    assert proportional_memory(usage) > 0


async def test_buffers_of_sockets_count_where_their_size_is_not_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a container, on older kernels."""
    monkeypatch.setattr(tree, "_SOCKET_BYTES_FILE", str(tmp_path / "missing"))
    pairs = [socket.socketpair() for _ in range(40)]
    try:
        assert socket_memory((os.getpid(),)) >= 16 * 208 * 1024
    finally:
        for one, other in pairs:
            one.close()
            other.close()


def descendants_of_ours() -> list[int]:
    return descendants(os.getpid())
