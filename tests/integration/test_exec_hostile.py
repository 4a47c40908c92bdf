"""`exec` against programs that try to get out, hide, or outlast what should end them."""

# The tests look at small local files while the loop waits for them anyway.

# The tests look at small local files while the loop waits for them anyway.
# ruff: noqa: ASYNC240

import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from mfm_ops.machine.errors import TransportFailure
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.meta import SideEffectKind
from mfm_ops.storage.memory import MemoryStore
from tests.integration.programs import Programs
from tests.support import IoBench
from transports.exec import ExecFactory
from transports.policy import ExecPolicy

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024

# Where this Python and its libraries lie, whichever way it was installed.
PYTHON = Path(sys.executable).resolve()
PYTHON_PATHS = tuple(
    path
    for path in dict.fromkeys(("/usr", "/lib", "/lib64", "/nix", sys.base_prefix))
    if Path(path).is_dir()
)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


def python(programs: Programs, body: str) -> str:
    """A program in Python; run it with `python_policy`."""
    path = programs.bin / "hostile"
    path.write_text(f"#!{PYTHON} -ISB\n{body}\n")
    path.chmod(0o755)
    return str(path)


def python_policy(programs: Programs, **changes: object) -> ExecPolicy:
    return programs.policy(read_only_paths=PYTHON_PATHS, **changes)


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
