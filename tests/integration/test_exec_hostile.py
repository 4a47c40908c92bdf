"""`exec` against programs that try to get out, hide, or outlast what should end them."""

# The tests look at small local files while the loop waits for them anyway.
# ASYNC110: the event to wait for happens in another process.
# ruff: noqa: ASYNC110, ASYNC220, ASYNC240

import contextlib
import gc
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from mfm_ops.machine.errors import TransportFailure
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.meta import SideEffectKind
from mfm_ops.storage.memory import MemoryStore
from tests.integration.programs import Programs, python, python_policy
from tests.support import IoBench
from transports import supervisor as bare_supervisor
from transports.exec import ExecFactory
from transports.runner import ProgramCall, ProgramRunner

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


def code(failure: TransportFailure) -> str:
    return str(failure.info.code)


# Ways out.


async def test_the_kernels_own_switches_cannot_be_turned(programs: Programs) -> None:
    body = "for f in kernel/core_pattern vm/swappiness kernel/hostname; do\n"
    body += "  ( : >>/proc/sys/$f ) 2>/dev/null && { echo 1; exit; }\ndone; echo 0"
    assert (await programs.run(programs.script("tune", body))).response == 0


async def test_no_socket_of_the_host_is_reached(programs: Programs) -> None:
    path = programs.bin / "listener"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as hidden:
        listener.bind(str(path))
        hidden.bind(f"\0{programs.marker}")
        for server in (listener, hidden):
            server.listen()
            server.setblocking(False)
        body = f"""
import socket
reached = 0
for address in ({str(path)!r}, "\\0{programs.marker}"):
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address)
        reached += 1
    except OSError:
        pass
a, b = socket.socketpair()
a.send(b"x")
print(reached if b.recv(1) == b"x" else -1)
"""
        reply = await programs.run(python(programs, body), policy=python_policy(programs))
        assert reply.response == 0
        for server in (listener, hidden):
            with pytest.raises(BlockingIOError):
                server.accept()


async def test_no_keyring_and_no_name_space_is_to_be_had(programs: Programs) -> None:
    body = """
import ctypes
libc = ctypes.CDLL(None)
new_user, new_mount = 0x10000000, 0x20000
print([libc.unshare(new_user), libc.unshare(new_mount), libc.mount(b"x", b"/tmp", b"tmpfs", 0, 0),
       libc.setuid(0), libc.chroot(b"/tmp")])
"""
    reply = await programs.run(python(programs, body), policy=python_policy(programs))
    assert reply.response == [-1] * 5


async def test_memory_that_is_in_no_process_is_not_to_be_had(programs: Programs) -> None:
    body = """
import ctypes
libc = ctypes.CDLL(None)
print([libc.memfd_create(b"x", 0), libc.shmget(0, 4096, 0o1600), libc.msgget(0, 0o1600)])
"""
    reply = await programs.run(python(programs, body), policy=python_policy(programs))
    assert reply.response == [-1] * 3


async def test_files_in_memory_count_as_memory(programs: Programs) -> None:
    body = "for d in /tmp /dev/shm; do dd if=/dev/zero of=$d/x bs=1M count=40 2>/dev/null; done"
    program = programs.script("fill", body + "; sleep 1000")
    failure = await programs.failure(program, policy=programs.policy(memory_mb=64))
    assert code(failure) == "exec_limit_exceeded"
    assert failure.info.details["limit"] == "memory"


async def test_the_hosts_own_tmp_is_not_the_programs_memory(
    programs: Programs, tmp_path: Path
) -> None:
    policy = programs.policy(memory_mb=16, read_only_paths=(str(tmp_path),))
    assert (await programs.run(programs.script("one", "sleep 0.1; echo 1"), policy=policy)).response


async def test_a_prefix_below_tmp_is_seen_though_the_whole_root_is(programs: Programs) -> None:
    programs.script("part", "echo 5")
    program = programs.script("whole", f"{programs.bin}/part")
    policy = programs.policy(read_only_paths=("/",))
    assert (await programs.run(program, policy=policy)).response == 5


# What is not what it looks like.


async def test_names_that_are_not_utf8_are_passed_over_or_refused(programs: Programs) -> None:
    program = programs.script("one", "echo 1")
    (Path(os.fsdecode(os.fsencode(programs.bin) + b"/\xff"))).mkdir()
    assert (await programs.run(program)).response == 1
    hidden = os.fsdecode(os.fsencode(programs.bin) + b"/\xff/one")
    shutil.copy(program, hidden)
    (programs.bin / "link").symlink_to(hidden)
    failure = await programs.failure(f"{programs.bin}/link")
    assert code(failure) == "exec_program_not_allowed"
    assert failure.info.details == {"reason": "not_utf8"}


async def test_a_name_that_ends_as_the_kernels_remark_does_is_a_name(programs: Programs) -> None:
    assert (await programs.run(programs.script("one (deleted)", "echo 1"))).response == 1


@pytest.mark.parametrize("separator", ["\r", "\v", "\f"])
async def test_an_interpreter_is_named_as_the_kernel_reads_it(
    programs: Programs, separator: str
) -> None:
    path = programs.bin / "odd"
    path.write_text(f"#!{programs.bin}/sh{separator}\necho 1\n", newline="")
    path.chmod(0o755)
    failure = await programs.failure(str(path))
    assert code(failure) == "exec_program_not_allowed"
    assert failure.info.details["reason"] == "interpreter"


@pytest.mark.parametrize("damage", ["cut", "machine", "longline", "header"])
async def test_what_the_kernel_refuses_is_not_handed_to_a_shell(
    programs: Programs, damage: str
) -> None:
    whole = (programs.bin / "busybox").read_bytes()
    broken = {
        "cut": whole[:100],
        "machine": whole[:18] + b"\x16\x00" + whole[20:],
        "longline": f"#!{programs.bin}/{'./' * 150}sh\necho 1\n".encode(),
        "header": b"\x7fELF\necho 1\nexit\n" + bytes(200),
    }
    path = programs.bin / "broken"
    path.write_bytes(broken[damage])
    path.chmod(0o755)
    # A shell is there to be found.
    failure = await programs.failure(str(path), policy=programs.policy(read_only_paths=("/",)))
    assert code(failure) == "exec_spawn_failed"
    assert failure.info.details["reason"] == "exec_format"


@pytest.mark.parametrize("status", [1, 2, 126, 127, 128, 137, 139, 143, 152, 255])
async def test_any_exit_code_is_a_failure_of_the_program(programs: Programs, status: int) -> None:
    failure = await programs.failure(programs.script("end", f"exit {status}"))
    assert code(failure) == "exec_failed"
    assert failure.info.details["exit_code"] == status


async def test_a_limit_that_is_not_set_is_not_blamed_for_an_exit_code(programs: Programs) -> None:
    policy = programs.policy(file_size_mb=None)
    failure = await programs.failure(programs.script("end", "exit 153"), policy=policy)
    assert code(failure) == "exec_failed"


# What errors do not say.


async def test_a_refused_output_does_not_name_its_own_keys(programs: Programs) -> None:
    program = programs.script("leak", """echo '{"canary":[1,{"canary":1.5}]}'""")
    failure = await programs.failure(program)
    assert failure.info.details["pointer"] == "/*/1/*"
    assert "canary" not in failure.info.model_dump_json()


@pytest.mark.parametrize(
    "change",
    [
        {"canary": 1},
        {"env": {"canary=": "x"}},
        {"env": {"canary": 1}},
        {"argv": ["canary\0"]},
        {"stdin_json": {"canary": 1.5}},
        {"stdin_json": {"canary": "\ud800"}},
        {"kind": "canary"},
    ],
)
async def test_a_refused_request_is_not_quoted(programs: Programs, change: dict[str, Any]) -> None:
    request = {"kind": "run_program_v1", "program_path": str(programs.bin / "cat"), **change}
    env = IoBench(MemoryStore()).env(SideEffectKind.ReadOnlyIo)
    transport = ExecFactory(programs.policy(), "policy").make(env)
    with pytest.raises(TransportFailure) as caught:
        # As if nobody had looked at it before.
        await transport.call(IoCall.model_construct(namespace="exec", request=request))
    assert code(caught.value) == "exec_request_invalid"
    assert "canary" not in caught.value.info.model_dump_json()


# What should end, and does.


async def test_a_program_that_kills_its_supervisor_dies_too(programs: Programs) -> None:
    body = "setsid sleep 1000 &\nsleep 0.2; sleep 1000 & kill -9 $PPID; sleep 1000"
    policy = programs.policy(sandbox="off")
    assert code(await programs.failure(programs.script("k", body), policy=policy)) == "exec_failed"
    assert programs.alive() == []


async def test_a_program_that_stops_its_supervisor_is_ended(programs: Programs) -> None:
    body = "setsid sleep 1000 &\nkill -STOP $PPID; sleep 1000"
    failure = await programs.failure(
        programs.script("stop", body), policy=programs.policy(sandbox="off"), timeout_ms=300
    )
    assert code(failure) == "exec_timeout"
    assert programs.alive() == []


@pytest.mark.parametrize("stop", ["kill -STOP $$", "kill -STOP 0", "kill -STOP -1; kill -STOP $$"])
async def test_a_stopped_program_is_ended(programs: Programs, stop: str) -> None:
    failure = await programs.failure(programs.script("stop", stop), timeout_ms=300)
    assert code(failure) == "exec_timeout"
    assert programs.alive() == []


async def test_a_huge_program_does_not_hold_a_call_past_its_deadline(programs: Programs) -> None:
    program = programs.bin / "huge"
    shutil.copy(programs.bin / "busybox", program)
    os.truncate(program, 64 * 1024 * MIB)
    assert code(await programs.failure(str(program), timeout_ms=200)) == "exec_timeout"


@pytest.mark.parametrize(
    "behaviour",
    [
        "exec sleep 1000",
        "tell garbage; exec sleep 1000",
        "tell '[1]'; exit 0",
        "echo 1; tell '{\"exit-code\":0}'; exit 0",
        "echo 1; exit 0",
        "kill -9 $$",
    ],
)
async def test_an_odd_launcher_runs_nothing_and_holds_nobody(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    path = programs.bin.parent / "path"
    path.mkdir()
    launcher = programs.script(
        "bwrap",
        'case "$1" in --version) echo bubblewrap 0.8.0; exit;; --help) exit;; esac\n'
        # Whichever the status stream is.
        'tell() { for f in /proc/$$/fd/*; do f=${f##*/}; [ $f -gt 2 ] && echo "$1" >&$f; done; }\n'
        f"{behaviour}",
        directory=path,
    )
    monkeypatch.setenv("PATH", str(path))
    program = programs.script("one", "echo 1")
    failure = await programs.failure(program, timeout_ms=500)
    assert code(failure) in ("exec_sandbox_unavailable", "exec_timeout", "exec_failed")
    assert running(launcher) == []


async def test_a_bubblewrap_that_does_not_answer_holds_nobody(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, answer = programs.bin.parent / "path", programs.bin.parent / "answer"
    path.mkdir()
    os.mkfifo(answer)
    programs.script("bwrap", f"read -r _ <{answer}; exit 1", directory=path)
    monkeypatch.setenv("PATH", str(path))
    began, ended, look = threading.Event(), threading.Event(), ProgramRunner._look_around

    def look_and_tell(runner: ProgramRunner) -> Any:
        began.set()
        try:
            return look(runner)
        finally:
            ended.set()

    monkeypatch.setattr(ProgramRunner, "_look_around", look_and_tell)
    assert code(await programs.failure("/one", timeout_ms=100)) == "exec_timeout"
    # The thread that asks was left alone: it ends here, not among the next test's descriptors.
    with answer.open("r+b", buffering=0) as pipe:
        pipe.write(b"\n")
        while began.is_set() and not ended.is_set():
            await anyio.sleep(0.005)


@contextlib.contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """Within, exactly `count` descriptors can be opened, wherever this process has its own."""
    # What earlier tests left to the collector would be closed within.
    gc.collect()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
    limit = max(used) + 1 + count
    with contextlib.ExitStack() as plugs:
        for _ in range(limit - len(used) - count):
            plugs.callback(os.close, os.open("/dev/null", os.O_RDONLY))
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("warm", [True, False])
async def test_where_descriptors_are_short_nothing_runs_and_nothing_is_left(
    programs: Programs, warm: bool
) -> None:
    programs.script("neighbour", "echo 1")
    program = programs.script("one", f"exec {programs.bin}/neighbour")
    call = ProgramCall(program)
    outcomes = []
    runner = ProgramRunner(programs.policy(), "policy")
    await runner.run(call, side_effects=SideEffectKind.ReadOnlyIo)
    for count in range(40):
        if not warm:
            runner = ProgramRunner(programs.policy(), "policy")
        with free_descriptors(count):
            try:
                reply = await runner.run(call, side_effects=SideEffectKind.ReadOnlyIo)
                outcomes.append(str(reply.response))
            except TransportFailure as failure:
                outcomes.append(f"{code(failure)} {failure.info.details['reason']}")
    # Where more garbage is collected meanwhile, more are free than were counted.
    assert outcomes[0] == "exec_spawn_failed resources"
    assert outcomes[-1] == "1"
    assert set(outcomes) == {"exec_spawn_failed resources", "1"}
    assert running("/dev/mfm/bin/one") == []


# Whoever is killed while a program runs.
OWNER = """
import asyncio, sys
from mfm_ops.machine.meta import SideEffectKind
from transports.policy import ExecPolicy
from transports.runner import ProgramCall, ProgramRunner

async def main(prefix, program):
    runner = ProgramRunner(ExecPolicy(allow_prefixes=(prefix,)), "policy")
    call = ProgramCall(f"{prefix}/true")
    await runner.run(call, side_effects=SideEffectKind.ReadOnlyIo)
    print("warm", flush=True)
    await runner.run(ProgramCall(program), side_effects=SideEffectKind.ReadOnlyIo)

asyncio.run(main(*sys.argv[1:]))
"""


def running(text: str) -> list[int]:
    """The processes with `text` in their command line, the dead excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


@pytest.mark.parametrize("microseconds", range(0, 12_000, 800))
async def test_nothing_outlives_an_owner_that_is_killed(
    programs: Programs, microseconds: int
) -> None:
    programs.script("true", "echo 1")
    name = f"long-{programs.marker}"
    program = programs.script(name, "setsid sleep 1000 & sleep 1000")
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(programs.bin), program], stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"warm\n"
        # Wherever in the set-up of the sandbox that falls: it must not matter.
        threading.Event().wait(microseconds / 1e6)
        owner.kill()
    with anyio.fail_after(120):
        while running(name):
            await anyio.sleep(0.005)


@pytest.mark.parametrize("listens_until", ["child-pid", "program-pid"])
def test_a_supervisor_that_nobody_listens_to_ends_its_tree(
    programs: Programs, listens_until: str
) -> None:
    name = f"long-{programs.marker}"
    program = programs.script(name, f"setsid {programs.script(f'{name}-daemon', 'sleep 1000')} &")
    told, status = os.pipe()
    gate, owner = os.pipe()
    spec = os.memfd_create("spec")
    argv = {"argv": [program], "env": {}, "script": True, "rlimits": []}
    os.write(spec, json.dumps(argv).encode())
    os.lseek(spec, 0, os.SEEK_SET)
    fds = (status, gate, os.open(program, os.O_RDONLY), spec)
    supervisor = subprocess.Popen(
        [sys.executable, "-I", "-S", bare_supervisor.__file__, *map(str, fds)], pass_fds=fds
    )
    for fd in fds:
        os.close(fd)
    with os.fdopen(told, "rb", buffering=0) as status_lines:
        assert b"child-pid" in status_lines.readline()
        if listens_until == "child-pid":
            status_lines.close()
        os.write(owner, b"\n")
        if listens_until == "program-pid":
            assert b"program-pid" in status_lines.readline()
    # The gate stays open: the program ends by itself, and leaves its daemon behind.
    assert supervisor.wait(120) == 0
    os.close(owner)
    assert running(name) == []
